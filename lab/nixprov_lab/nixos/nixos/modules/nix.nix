# Nix: its configuration, its daemon, its build users.
{
  config,
  lib,
  options,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  inherit (import ./declare.nix lib) option flag inert refuse;
  cfg = config.nix;
  builders = 8;
  setting = types.nullOr (types.oneOf [types.bool types.int types.float types.str types.path types.package]);
  show = value:
    if builtins.isBool value
    then lib.boolToString value
    else if builtins.isList value
    then lib.concatMapStringsSep " " show value
    else toString value;
  channels = "/nix/var/nix/profiles/per-user/root/channels";
in {
  imports = lib.mapAttrsToList (old: new:
    lib.mkRenamedOptionModuleWith {
      sinceRelease = 2205;
      from = ["nix" old];
      to = ["nix" "settings" new];
    }) {
    allowedUsers = "allowed-users";
    autoOptimiseStore = "auto-optimise-store";
    binaryCachePublicKeys = "trusted-public-keys";
    binaryCaches = "substituters";
    buildCores = "cores";
    maxJobs = "max-jobs";
    requireSignedBinaryCaches = "require-sigs";
    sandboxPaths = "extra-sandbox-paths";
    systemFeatures = "system-features";
    trustedUsers = "trusted-users";
    useSandbox = "sandbox";
  };
  options.nix = {
    enable = flag true "Whether the machine has Nix.";
    package = option types.package pkgs.nix "The Nix package.";
    settings = mkOption {
      type = types.submodule {freeformType = types.attrsOf (types.either setting (types.listOf setting));};
      default = {};
      description = "nix.conf.";
    };
    extraOptions = option types.lines "" "Lines added to nix.conf.";
    checkConfig = flag true "Without effect.";
    nixPath =
      option (types.listOf types.str) (lib.optionals cfg.channel.enable ["nixpkgs=${channels}/nixos" "nixos-config=/etc/nixos/configuration.nix" channels]) "NIX_PATH.";
    channel.enable = flag true "Whether NIX_PATH has root's channels.";
    gc = {
      automatic = flag false "Run the garbage collector by a timer.";
      dates = option (types.either types.singleLineStr (types.listOf types.str)) "03:15" "When.";
      options = option types.singleLineStr "" "Arguments of nix-collect-garbage.";
      persistent = flag true "Make up for missed runs.";
      randomizedDelaySec = option types.singleLineStr "0" "RandomizedDelaySec=.";
    };
    optimise = inert;
    registry = option (types.attrsOf types.anything) {} "The system's flake registry.";
    buildMachines = option (types.listOf types.attrs) [] "Not supported.";
    distributedBuilds = flag false "Without effect.";
    daemonCPUSchedPolicy = option types.str "other" "CPUSchedulingPolicy=.";
    daemonIOSchedClass = option types.str "best-effort" "IOSchedulingClass=.";
    daemonIOSchedPriority = option types.int 4 "IOSchedulingPriority=.";
    nrBuildUsers = option types.int builders "How many build users there are.";
  };
  config = lib.mkIf cfg.enable {
    assertions = [(refuse "nix.buildMachines" (cfg.buildMachines != []))];
    nix.settings = {
      build-users-group = "nixbld";
      cores = lib.mkDefault 0;
      max-jobs = lib.mkDefault "auto";
      sandbox = lib.mkDefault true;
      sandbox-fallback = false;
      require-sigs = lib.mkDefault true;
      allowed-users = lib.mkDefault ["*"];
      trusted-users = ["root"];
      # The lab has no way out: nothing is asked of a cache, and a build finds the shell that NixOS gives it too.
      substituters = lib.mkDefault [];
      flake-registry = lib.mkDefault "";
      sandbox-paths = ["/bin/sh=${pkgs.busybox}/bin/busybox"];
      # /tmp is in memory.
      build-dir = lib.mkDefault "/nix/var/nix/builds";
    };
    environment.systemPackages = [cfg.package];
    environment.sessionVariables.NIX_PATH = cfg.nixPath;
    environment.etc."nix/nix.conf".text = ''
      # WARNING: this file is generated from the nix.* options in
      # your NixOS configuration, typically
      # /etc/nixos/configuration.nix.  Do not edit it!
      ${lib.concatStrings (lib.mapAttrsToList (name: value: "${name} = ${show value}\n") (lib.filterAttrs (_: value: value != null) cfg.settings))}
      ${cfg.extraOptions}
    '';
    environment.etc."nix/registry.json".text = builtins.toJSON {
      version = 2;
      flakes = lib.mapAttrsToList (id: entry:
        {
          from = {
            type = "indirect";
            inherit id;
          };
          exact = true;
        }
        // entry) ({
          nixpkgs.to = {
            type = "path";
            path = "${../..}";
          };
        }
        // cfg.registry);
    };
    users.groups.nixbld.gid = 30000;
    users.groups.nixbld.members = map (n: "nixbld${toString n}") (lib.range 1 cfg.nrBuildUsers);
    users.users = builtins.listToAttrs (map (n:
      lib.nameValuePair "nixbld${toString n}" {
        uid = 30000 + n;
        group = "nixbld";
        isSystemUser = true;
        description = "Nix build user ${toString n}";
      }) (lib.range 1 cfg.nrBuildUsers));
    systemd.tmpfiles.rules = [
      "d /nix/var/nix/builds 0755 root root 7d -"
      "d /nix/var/nix/daemon-socket 0755 root root -"
      "d /nix/var/nix/gcroots/tmp 0755 root root -"
      "d /nix/var/nix/temproots 0755 root root -"
    ];
    systemd.sockets.nix-daemon = {
      description = "Nix Daemon Socket";
      wantedBy = ["sockets.target"];
      before = ["multi-user.target"];
      listenStreams = ["/nix/var/nix/daemon-socket/socket"];
    };
    systemd.services.nix-daemon = {
      description = "Nix Daemon";
      documentation = ["man:nix-daemon"];
      path = [cfg.package pkgs.util-linux pkgs.openssh];
      requires = ["nix-daemon.socket"];
      environment = config.environment.variables // {CURL_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt";};
      unitConfig.RequiresMountsFor = ["/nix/store" "/nix/var"];
      serviceConfig = {
        ExecStart = "@${cfg.package}/bin/nix-daemon nix-daemon --daemon";
        CPUSchedulingPolicy = cfg.daemonCPUSchedPolicy;
        IOSchedulingClass = cfg.daemonIOSchedClass;
        IOSchedulingPriority = cfg.daemonIOSchedPriority;
        LimitNOFILE = 1048576;
        KillMode = "process";
        Delegate = "yes";
        OOMScoreAdjust = 250;
      };
      restartTriggers = [config.environment.etc."nix/nix.conf".source];
      # As on NixOS, `stopIfChanged = false` lets the daemon's clients survive a switch.
      stopIfChanged = false;
    };
    systemd.services.nix-gc = {
      description = "Nix Garbage Collector";
      script = "exec ${cfg.package}/bin/nix-collect-garbage ${cfg.gc.options}";
      serviceConfig.Type = "oneshot";
      startAt = lib.optionals cfg.gc.automatic (lib.toList cfg.gc.dates);
    };
    systemd.timers.nix-gc = lib.mkIf cfg.gc.automatic {
      timerConfig = {
        RandomizedDelaySec = cfg.gc.randomizedDelaySec;
        Persistent = cfg.gc.persistent;
      };
    };
  };
}

# `nixprov bridge run` as a service of NixOS: a user of its own, secrets as credentials, and no rights but two hosts' HTTPS.
# Not for a machine that runs the jobs of pull requests. docs/bridge.md says how to use it.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) mkOption types;
  cfg = config.services.nixprov-bridge;
  file = (pkgs.formats.toml { }).generate "bridge.toml" cfg.settings;
in
{
  options.services.nixprov-bridge = {
    enable = lib.mkEnableOption "the bridge from pull requests of GitHub to GitLab";
    package = mkOption {
      type = types.package;
      description = "nixprov with its extra `bridge`.";
    };
    settings = mkOption {
      type = types.attrsOf types.anything;
      description = "bridge.toml. Files of secrets are named as in `credentials`.";
    };
    credentials = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        "gitlab-token" = "/run/secrets/gitlab-token";
      };
      description = "Secrets by their names in `settings`: paths on this machine, outside of the Nix store.";
    };
    addresses = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Where it may connect to, as addresses or networks; none is anywhere.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = !lib.any (lib.hasPrefix builtins.storeDir) (lib.attrValues cfg.credentials);
        message = "services.nixprov-bridge.credentials: everybody can read the Nix store";
      }
    ];

    # For a person at this machine: `nixprov bridge approve`, `nixprov bridge status`.
    environment.etc."nixprov/bridge.toml".source = file;
    environment.systemPackages = [ cfg.package ];

    systemd.services.nixprov-bridge = {
      description = "Pull requests of GitHub, built by GitLab";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      # git through prlimit (util-linux), its credential through cat.
      path = [
        pkgs.git
        pkgs.util-linux
        pkgs.coreutils
      ];
      serviceConfig = {
        ExecStart = "${cfg.package}/bin/nixprov bridge run --config ${file}";
        DynamicUser = true;
        StateDirectory = "nixprov-bridge";
        StateDirectoryMode = "0700";
        LoadCredential = lib.mapAttrsToList (name: path: "${name}:${path}") cfg.credentials;
        Restart = "always";
        RestartSec = 30;
        MemoryMax = "5G";
        TasksMax = 128;

        CapabilityBoundingSet = "";
        DevicePolicy = "closed";
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        NoNewPrivileges = true;
        PrivateDevices = true;
        PrivateTmp = true;
        PrivateUsers = true;
        ProcSubset = "pid";
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHome = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        ProtectSystem = "strict";
        RemoveIPC = true;
        RestrictAddressFamilies = [
          "AF_INET"
          "AF_INET6"
          "AF_UNIX"
        ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        SystemCallErrorNumber = "EPERM";
        # Limits of git's are set by prlimit, which is among @resources.
        SystemCallFilter = [
          "@system-service"
          "~@privileged"
        ];
        UMask = "0077";
      }
      // lib.optionalAttrs (cfg.addresses != [ ]) {
        IPAddressDeny = "any";
        IPAddressAllow = cfg.addresses;
      };
    };
  };
}

# The jobs' own daemon: a second one on the same store that trusts no client, root in a container or not.
# The plain daemon would take root of a container for root of the host (NixOS/nix#9649); nothing here changes it.
# Jobs do not reach this one's socket either: filter.nix stands in between.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.nixprov;
  nix = config.nix.package or pkgs.nix;
  internal = import ./internal.nix { inherit lib; };

  network = "${cfg.container.networkUnit}.service";

  settings = import ./nix-settings.nix;
  hasSetting = name: lib.versionAtLeast (lib.getVersion nix) (settings.since.${name} or "2.18");

  # The daemon's own folder, so that its look-ups at caches survive restarts.
  home = "/var/cache/nixprov-nix-daemon";
  # Beside the store, as in newer releases of Nix: /tmp is open to all users, and not always a disk.
  buildDir = "/nix/var/nix/nixprov-builds";

  # Fixed here, because the host's nix.conf belongs to its owner and may have other values.
  forced = lib.filterAttrs (name: _: hasSetting name) (
    settings.forced {
      inherit nix buildDir;
      inherit (cfg) limits keepHook;
    }
  );
  features = lib.attrValues (lib.filterAttrs (name: _: hasSetting name) settings.features);

  option = name: value: "--option ${name} ${lib.escapeShellArg value}";
  # The order on the line matters: the features are set last, after all settings that need one.
  flags = lib.concatStringsSep " " (
    [ (option "extra-experimental-features" (toString features)) ] ++ lib.mapAttrsToList option forced
  );

  show = if lib.versionAtLeast (lib.getVersion nix) "2.20" then "config show" else "show-config";

  # Read once, at the start, so that jobs also get a cache that the host's owner adds.
  nixConf = config.environment.etc."nix/nix.conf".source or null;

  # A build that asks for variables of the daemon gets only the proxy of the whole host.
  environment = lib.concatStringsSep " " (
    lib.mapAttrsToList (name: value: "${name}=${lib.escapeShellArg value}") (
      {
        HOME = home;
        # The folder of builds for a Nix without build-dir.
        TMPDIR = buildDir;
        CURL_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt";
      }
      // (config.networking.proxy.envVars or { })
    )
  );

  program = pkgs.writeText "nixprov-daemon.py" (builtins.readFile ./daemon.py);

  # From the builds' networks all may go out, but none may reach another build's network or this namespace.
  translation = pkgs.writeText "nixprov-builds.nft" ''
    table ip nixprov-builds
    delete table ip nixprov-builds
    table ip nixprov-builds {
      chain out {
        type nat hook postrouting priority 100;
        oifname "eth0" masquerade
      }
      chain through {
        type filter hook forward priority 0; policy drop;
        iifname "build*" oifname "eth0" accept
        iifname "eth0" ct state established,related accept
      }
      chain here {
        type filter hook input priority 0;
        iifname "build*" drop
      }
    }
  '';

  # The collector's thresholds are bytes to Nix; a share of the disk is right on every disk.
  start = pkgs.writeScript "nixprov-nix-daemon" ''
    #!${pkgs.bash}/bin/bash
    set -euo pipefail
    size=$(($(${pkgs.coreutils}/bin/stat --file-system --format '%b * %S' /nix/store)))
    # A resolver on the host's loopback is out of reach of the builds' network: they get the one that containers have.
    if ${pkgs.gnugrep}/bin/grep -qsE '^nameserver[[:space:]]+(127\.|::1)' /etc/resolv.conf; then
      /run/current-system/sw/bin/mount --bind /run/nixprov/network/resolv.conf /etc/resolv.conf
    fi
    # A fixed-output build may ask for any variable of the daemon (impureEnvVars), and systemd hands down its own, which
    # anybody's `systemctl set-environment` adds to.
    clean() { ${pkgs.coreutils}/bin/env --ignore-environment ${environment} PATH="$PATH" "$@"; }
    # Of the features that the host has on, those that jobs may have too.
    features="nix-command daemon-trust-override"
    enabled=$(clean ${nix}/bin/nix --extra-experimental-features nix-command ${show} |
      ${pkgs.gnused}/bin/sed -n 's/^experimental-features = //p')
    for feature in $enabled; do
      case $feature in
        ${lib.concatStringsSep " | " settings.withheld}) ;;
        *) features="$features $feature" ;;
      esac
    done
    # Docker answers for names inside the network alone, so builds have to stay in it.
    apart=()
    if ! ${pkgs.gnugrep}/bin/grep -qsE '^nameserver[[:space:]]+(127\.|::1)' /etc/resolv.conf; then
      if ${pkgs.nftables}/bin/nft --file ${translation} && echo 1 > /proc/sys/net/ipv4/ip_forward; then
        apart=(--ip ${pkgs.iproute2}/bin/ip)
      else
        echo "this kernel does not translate addresses for us: builds with a network share one" >&2
      fi
    fi
    exec ${pkgs.coreutils}/bin/env --ignore-environment ${environment} \
      PATH="$PATH" LISTEN_FDS="$LISTEN_FDS" LISTEN_PID="$LISTEN_PID" \
      ${pkgs.python3}/bin/python3 -I -B ${program} "''${apart[@]}" -- ${nix}/bin/nix ${flags} \
      --option experimental-features "$features" \
      --option min-free $((size / 100 * ${toString cfg.cache.minFreePercent})) \
      --option max-free $((size / 100 * ${toString cfg.cache.maxFreePercent})) \
      daemon --stdio --force-untrusted
  '';
in
{
  options.services.nixprov.hasOwnDaemon = internal lib.types.bool (
    cfg.trust == "none" && lib.versionAtLeast (lib.getVersion nix) "2.18"
  ) "Whether jobs have a daemon of theirs: this Nix has one that can be told to trust nobody, and it is wanted.";

  config.assertions = [
    {
      assertion = config.nix.enable or true;
      message = "nixprov: nix.enable is false: this host has no Nix daemon and no build users for jobs; leave it on, or run nixprov down for this host";
    }
  ];

  config.environment.etc."nixprov-revision".text = cfg.revision;

  # The next boot removes the remains of killed builds.
  config.systemd.tmpfiles.rules = lib.mkIf cfg.hasOwnDaemon [
    "d ${buildDir} 0700 root root -"
    "R! ${buildDir}/* - - - - -"
  ];

  config.systemd.sockets.nixprov-nix-daemon = lib.mkIf cfg.hasOwnDaemon {
    description = "The untrusting Nix daemon's socket, for the filter in front of it";
    wantedBy = [ "sockets.target" ];
    listenStreams = [ "/run/nixprov/daemon/socket" ];
    socketConfig = {
      SocketMode = "0660";
      SocketUser = "root";
      SocketGroup = "nixprov-filter";
      DirectoryMode = "0755";
    };
  };

  config.systemd.services.nixprov-nix-daemon = lib.mkIf cfg.hasOwnDaemon {
    description = "Nix daemon that trusts no client, for GitLab jobs";
    requires = [
      "nixprov-nix-daemon.socket"
      network
    ];
    after = [ network ];
    # The owner may restart a shared engine, and then the namespace is another.
    partOf = lib.optional cfg.container.isShared network;
    # As for NixOS' own daemon: builders find their own tools, and the daemon needs ssh and tar at most.
    path = [
      nix
      pkgs.openssh
      pkgs.gnutar
      pkgs.gzip
    ];
    # Restarted like NixOS' own: the process that listens is replaced, the builds of running jobs go on.
    stopIfChanged = false;
    restartTriggers = lib.optional (nixConf != null) nixConf;
    unitConfig.RequiresMountsFor = "/nix/store";
    serviceConfig = {
      ExecStart = start;
      KillMode = "process";
      LimitNOFILE = 1048576;
      Delegate = true;
      OOMScoreAdjust = 250;
      # A builder that ran out of memory has failed; the daemon of all others goes on.
      OOMPolicy = "continue";
      Slice = "nixprov.slice";

      # Otherwise builds with a network (fixed-output ones) would reach the host's loopback and abstract sockets.
      NetworkNamespacePath = "/run/nixprov/network/namespace";

      # Builders inherit all of this, so it takes away nothing that a build may need. Builds need namespaces, /dev/kvm,
      # memory that is written and executed (compilers just in time), 32-bit calls and personalities, ptrace.
      # There is no PrivateTmp, because a restart would remove the folder of the builds that go on.
      NoNewPrivileges = true;
      # The daemon may write only the paths that building needs. Roots of the collector and profiles belong to the host,
      # except the roots of jobs' builds. By default systemd would leave /dev and /run writable.
      ProtectSystem = "strict";
      ReadWritePaths = [
        "/nix/store"
        "/nix/var/nix"
        "/nix/var/nix/gcroots/nixprov"
      ];
      ReadOnlyPaths = [
        "/nix/var/nix/gcroots"
        "/nix/var/nix/profiles"
        "/run"
        "/sys"
      ];
      TemporaryFileSystem = "/dev/shm";
      CacheDirectory = baseNameOf home;
      CacheDirectoryMode = "0700";
      # The daemon must read homes: its collector would take the build behind an unseen `result` link for garbage.
      ProtectHome = "read-only";
      PrivateMounts = true;
      ProtectClock = true;
      ProtectControlGroups = true;
      ProtectKernelModules = true;
      ProtectProc = "invisible";
      RestrictRealtime = true;
      RestrictSUIDSGID = true;
      UMask = "0022";
      CapabilityBoundingSet = "~CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_TIME CAP_SYS_BOOT CAP_SYS_PACCT CAP_SYSLOG CAP_MAC_ADMIN CAP_MAC_OVERRIDE CAP_AUDIT_CONTROL CAP_AUDIT_READ CAP_AUDIT_WRITE CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_LINUX_IMMUTABLE CAP_LEASE CAP_IPC_LOCK CAP_SYS_TTY_CONFIG CAP_NET_RAW CAP_NET_BROADCAST";
      SystemCallFilter = "~@clock @cpu-emulation @module @obsolete @raw-io @reboot @swap";
      SystemCallErrorNumber = "EPERM";
      InaccessiblePaths = [
        "-/var/lib/nixprov/secrets"
        "-/var/lib/nixprov-runner"
        "-/run/nixprov/podman.sock"
        "-/run/docker.sock"
        "-/run/podman"
        "-/nix/var/nix/daemon-socket"
      ];
    };
  };

  # The limits for all jobs of this host together, in addition to the limits of each container.
  config.systemd.slices.nixprov = {
    description = "Builds and runners of nixprov";
    sliceConfig = {
      CPUWeight = cfg.limits.cpuWeight;
      IOWeight = cfg.limits.ioWeight;
      MemoryMax = "${toString cfg.limits.memoryPercent}%";
      TasksMax = cfg.limits.tasks;
    };
  };
}

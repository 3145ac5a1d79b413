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

  # Fixed here, because the daemon's own configuration belongs to the user and may say otherwise.
  forced = {
    extra-experimental-features = "nix-command daemon-trust-override";
    sandbox = "true";
    # On a kernel that has no namespaces for us a build fails, instead of going without a sandbox.
    sandbox-fallback = "false";
    # A host that takes unsigned paths takes them from whoever asks, and what is at a path is then the job's word.
    require-sigs = "true";
    allowed-users = "root nixprov-filter";
    trusted-users = "root";
    netrc-file = "/dev/null";
    access-tokens = "";
    keep-failed = "false";
    # The job's own log has it. Here no collector would ever take it away, and who else may read it is hard to say.
    keep-build-log = "false";
    max-build-log-size = toString (cfg.limits.buildLogMiB * 1024 * 1024);
    timeout = toString cfg.limits.buildTimeout;
    max-silent-time = toString cfg.limits.buildSilence;
    post-build-hook = "${cfg.keepHook}";
  };

  flags = lib.concatStringsSep " " (
    lib.mapAttrsToList (name: value: "--option ${name} ${lib.escapeShellArg value}") forced
  );

  # Read once, at the start: a cache that the host's owner adds is there for jobs too.
  nixConf = config.environment.etc."nix/nix.conf".source or null;

  # The proxy that the whole host uses is all that there is to have for a build that asks.
  environment = lib.concatStringsSep " " (
    lib.mapAttrsToList (name: value: "${name}=${lib.escapeShellArg value}") (
      {
        HOME = "/root";
        CURL_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt";
      }
      // (config.networking.proxy.envVars or { })
    )
  );

  # Variables that the user's own builds get on asking. Emptied where there are some, or it is not known: without its
  # feature the setting cannot be emptied, and Nix would tell every build of it.
  lent = lib.optionalString (lib.versionAtLeast (lib.getVersion nix) "2.19") ''
    feature="nix-command configurable-impure-env"
    if [ -n "$(clean ${nix}/bin/nix --extra-experimental-features "$feature" config show impure-env 2> /dev/null || echo unknown)" ]; then
      lent=(--option extra-experimental-features "daemon-trust-override $feature" --option impure-env "")
    fi
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
    lent=()
    ${lent}
    exec ${pkgs.coreutils}/bin/env --ignore-environment ${environment} \
      PATH="$PATH" LISTEN_FDS="$LISTEN_FDS" LISTEN_PID="$LISTEN_PID" \
      ${nix}/bin/nix ${flags} "''${lent[@]}" \
      --option min-free $((size / 100 * ${toString cfg.cache.minFreePercent})) \
      --option max-free $((size / 100 * ${toString cfg.cache.maxFreePercent})) \
      daemon --force-untrusted
  '';
in
{
  options.services.nixprov.hasOwnDaemon = internal lib.types.bool (
    cfg.trust == "none" && lib.versionAtLeast (lib.getVersion nix) "2.18"
  ) "Whether jobs have a daemon of theirs: this Nix has one that can be told to trust nobody, and it is wanted.";

  config.environment.etc."nixprov-revision".text = cfg.revision;

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
    # Its namespace is another after a restart of an engine that is not ours.
    partOf = lib.optional cfg.container.isShared network;
    # As for NixOS' own daemon: builders find their tools by themselves, the daemon needs ssh and tar at the most.
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

      # Builds with a network (fixed-output ones) would else reach the host's loopback and abstract sockets.
      NetworkNamespacePath = "/run/nixprov/network/namespace";

      # Builders inherit all of this. So nothing is here that a build may need: namespaces, /dev/kvm, memory that is
      # written and executed (compilers just in time), 32-bit calls and personalities, ptrace. And no PrivateTmp: a
      # restart would take the folder from under the builds that go on.
      NoNewPrivileges = true;
      ProtectSystem = "full";
      ProtectHome = true;
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
        "-/var/lib/nixprov"
        "-/var/lib/nixprov-runner"
        "-/run/nixprov/podman.sock"
        "-/run/docker.sock"
        "-/run/podman"
        "-/nix/var/nix/daemon-socket"
      ];
    };
  };

  # What all jobs of this host may take from its other work together, containers' own limits aside.
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

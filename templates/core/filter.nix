# The jobs' door to Nix: a small program between them and the untrusting daemon. It knows the protocol and passes only
# the requests that building needs. The requests and the reasons are in filter.py.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.nixprov;
  version = lib.getVersion (config.nix.package or pkgs.nix);

  # A Nix without an untrusting daemon trusts by user. Its plain daemon sees the filter's user for every client.
  daemon = if cfg.hasOwnDaemon then "nixprov-nix-daemon.socket" else "nix-daemon.socket";
  daemonSocket =
    if cfg.hasOwnDaemon then "/run/nixprov/daemon/socket" else "/nix/var/nix/daemon-socket/socket";
  trusted = (config.nix.settings or { }).trusted-users or (config.nix.trustedUsers or [ ]);
  signed = (config.nix.settings or { }).require-sigs or (config.nix.requireSignedBinaryCaches or true);

  # The names that it must not trust, then.
  jobs = [
    "*"
    "nixprov-filter"
    "@nixprov-filter"
  ];

  # The parts of a folder with a __main__.py find each other, even with -I.
  part = name: pkgs.writeText "nixprov-${name}" (builtins.readFile (./. + "/${name}"));
  program = pkgs.runCommand "nixprov-filter" { } ''
    mkdir $out
    cp ${part "filter.py"} $out/__main__.py
    cp ${part "archive.py"} $out/archive.py
    cp ${part "grammar.py"} $out/grammar.py
    cp ${part "session.py"} $out/session.py
    cp ${part "tally.py"} $out/tally.py
    cp ${part "wire.py"} $out/wire.py
  '';

  # The host's own limit of builds at once, unless the inventory has one.
  maxJobs = (config.nix.settings or { }).max-jobs or (config.nix.maxJobs or "auto");
  buildsPerClient =
    if cfg.limits.buildsPerClient == 0 && builtins.isInt maxJobs then maxJobs else cfg.limits.buildsPerClient;

  start = pkgs.writeScript "nixprov-nix-filter" ''
    #!${pkgs.bash}/bin/bash
    set -euo pipefail
    jobs=${toString buildsPerClient}
    [ "$jobs" != 0 ] || jobs=$(${pkgs.coreutils}/bin/nproc)
    exec ${pkgs.python3}/bin/python3 -I -B ${program} --daemon ${daemonSocket} \
      --max-jobs "$jobs" --timeout ${toString cfg.limits.buildTimeout} --max-silent ${toString cfg.limits.buildSilence} \
      --per-job ${toString cfg.limits.connectionsPerJob} --counters ${cfg.countersSocket}
  '';
in
{
  config = lib.mkIf (cfg.trust != "plain") {
    assertions = [
      {
        assertion = lib.versionAtLeast version "2.4";
        message = "nixprov: nix ${version} is older than 2.4: it has no way to keep jobs from being root of this host (nixprov_trust: plain allows it)";
      }
      {
        assertion = cfg.hasOwnDaemon || !(lib.any (user: lib.elem user trusted) jobs);
        message = "nixprov: nix ${version} is older than 2.18, and trusted-users takes jobs for root of this host: take \"*\" out of it (nixprov_trust: plain allows it)";
      }
      {
        assertion = cfg.hasOwnDaemon || signed;
        message = "nixprov: nix ${version} is older than 2.18, and without require-sigs jobs can be root of this host: leave it on (nixprov_trust: plain allows it)";
      }
    ];

    warnings = lib.optional (!cfg.hasOwnDaemon) (
      "nixprov: nix ${version} is older than 2.18: jobs are no trusted clients, but their fixed-output builds have the"
      + " host's network and what they build is not held for later jobs"
    );

    systemd.sockets.${lib.removeSuffix ".socket" cfg.door.unit} = {
      description = "Nix for GitLab jobs";
      wantedBy = [ "sockets.target" ];
      # The folder is mounted into the jobs' containers, so the socket may be replaced inside it. Every user in a container
      # reaches it by the mount. The host's users would have to pass the folder above.
      listenStreams = [ "${cfg.door.folder}/socket" ];
      socketConfig = {
        Service = "nixprov-nix-filter.service";
        ExecStartPre = "${pkgs.coreutils}/bin/install -d -m ${if cfg.shareSocket then "0755" else "0700"} ${dirOf cfg.door.folder}";
        SocketMode = "0666";
        DirectoryMode = "0755";
      };
    };

    systemd.services.nixprov-nix-filter = {
      description = "What GitLab jobs may ask of Nix";
      requires = [
        cfg.door.unit
        daemon
      ];
      after = [ daemon ];
      # Restarted without ending the connections of running jobs.
      stopIfChanged = false;
      serviceConfig = import ./hardening.nix // {
        User = "nixprov-filter";
        Group = "nixprov-filter";
        ExecStart = start;
        KillMode = "process";
        Restart = "on-failure";
        RestartSec = 1;
        LimitNOFILE = 8192;
        MemoryMax = "2G";
        # Out of memory, only one connection and its job are lost; by default systemd would stop the whole unit.
        OOMPolicy = "continue";
        TasksMax = 2048;

        PrivateNetwork = true;
        # /proc tells the container of a client.
        ProtectProc = "default";
        RestrictAddressFamilies = [ "AF_UNIX" ];
        SystemCallFilter = [
          "@system-service"
          "~@privileged @resources"
        ];
        InaccessiblePaths = [
          "-/run/docker.sock"
          "-/run/podman"
        ]
        ++ lib.optional cfg.hasOwnDaemon "-/nix/var";
      };
    };

    users.users.nixprov-filter = {
      isSystemUser = true;
      group = "nixprov-filter";
      description = "What GitLab jobs may ask of Nix";
    };
    users.groups.nixprov-filter = { };
  };
}

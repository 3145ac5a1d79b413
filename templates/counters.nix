# What each job cost and what the store saved it: a book on the host that `nixprov status` reads. counters.py says where
# its numbers come from.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.nixprov;

  program = pkgs.writeText "nixprov-counters.py" (builtins.readFile ./counters.py);
in
{
  options.services.nixprov.countersSocket = lib.mkOption {
    type = lib.types.str;
    internal = true;
    readOnly = true;
    default = "/run/nixprov/counters/socket";
    description = "Where the filter says which container a connection is from.";
  };

  config = {
    systemd.sockets.nixprov-counters = {
      description = "Numbers of the connections of GitLab jobs, from the filter";
      wantedBy = [ "sockets.target" ];
      socketConfig = {
        ListenDatagram = cfg.countersSocket;
        SocketMode = "0660";
        SocketUser = "root";
        SocketGroup = "nixprov-filter";
        DirectoryMode = "0755";
      };
    };

    systemd.services.nixprov-counters = {
      description = "What GitLab jobs built and found";
      wantedBy = [ "multi-user.target" ];
      requires = [ "nixprov-counters.socket" ];
      # Wanted, not required: without an engine there is no job, and the book waits.
      wants = [ "nixprov-podman.socket" ];
      after = [
        "nixprov-counters.socket"
        "nixprov-podman.socket"
      ];
      unitConfig.StartLimitIntervalSec = 0;
      serviceConfig = {
        User = "nixprov-counters";
        Group = "nixprov-counters";
        # The engine's socket is this group's.
        SupplementaryGroups = [ "nixprov-runner" ];
        ExecStart = "${pkgs.python3}/bin/python3 -I -B ${program} --engine /run/nixprov/podman.sock --book /var/lib/nixprov-counters/jobs.json";
        StateDirectory = "nixprov-counters";
        StateDirectoryMode = "0700";
        Restart = "always";
        RestartSec = 5;
        Slice = "nixprov.slice";
        MemoryMax = "256M";
        TasksMax = 1024;

        CapabilityBoundingSet = "";
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        NoNewPrivileges = true;
        PrivateDevices = true;
        PrivateNetwork = true;
        PrivateTmp = true;
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
        RestrictAddressFamilies = [ "AF_UNIX" ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        SystemCallFilter = [
          "@system-service"
          "~@privileged @resources"
        ];
        SystemCallErrorNumber = "EPERM";
        UMask = "0077";
        InaccessiblePaths = [ "-/nix/var" ];
      };
    };

    users.users.nixprov-counters = {
      isSystemUser = true;
      group = "nixprov-counters";
      description = "What GitLab jobs built and found";
    };
    users.groups.nixprov-counters = { };
  };
}

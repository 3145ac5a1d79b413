# A book on the host with the cost of each job and the savings by the store. `nixprov status` reads it. The sources of
# its numbers are in counters.py.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.nixprov;
  engine = cfg.container;
  internal = import ./internal.nix { inherit lib; };

  program = pkgs.writeText "nixprov-counters.py" (builtins.readFile ./counters.py);
in
{
  options.services.nixprov.countersSocket =
    internal lib.types.str "/run/nixprov/counters/socket"
      "Where the filter says which container a connection is from.";

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
      wants = engine.units;
      after = [ "nixprov-counters.socket" ] ++ engine.units;
      unitConfig.StartLimitIntervalSec = 0;
      serviceConfig = import ./hardening.nix // {
        User = "nixprov-counters";
        Group = "nixprov-counters";
        # The engine's socket is this group's.
        SupplementaryGroups = [ engine.group ];
        ExecStart = "${pkgs.python3}/bin/python3 -I -B ${program} --engine ${engine.socket} --book /var/lib/nixprov-counters/jobs.json";
        StateDirectory = "nixprov-counters";
        StateDirectoryMode = "0700";
        Restart = "always";
        RestartSec = 5;
        MemoryMax = "256M";
        TasksMax = 1024;

        PrivateNetwork = true;
        ProtectProc = "invisible";
        RestrictAddressFamilies = [ "AF_UNIX" ];
        SystemCallFilter = [
          "@system-service"
          "~@privileged @resources"
        ];
        InaccessiblePaths = [ "-/nix/var" ];
      };
    };

    users.users.nixprov-counters = {
      isSystemUser = true;
      group = "nixprov-counters";
      description = "What GitLab jobs built and found";
    };
    users.groups.nixprov-counters = { };
    # Only the filter uses this socket, and trusted jobs have no filter.
    users.groups.nixprov-filter = { };
  };
}

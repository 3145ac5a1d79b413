# The jobs' own door to Nix: a second daemon on the same store that trusts no client, root in a container or not.
# The plain daemon would take root of a container for root of the host (NixOS/nix#9649); nothing here changes it.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  nix = config.nix.package or pkgs.nix;

  # Fixed here, because the daemon's own configuration belongs to the user and may say otherwise.
  forced = {
    extra-experimental-features = "nix-command daemon-trust-override";
    sandbox = "true";
    trusted-users = "root";
    netrc-file = "/dev/null";
    access-tokens = "";
    keep-failed = "false";
  };

  flags = lib.concatStringsSep " " (
    lib.mapAttrsToList (name: value: "--option ${name} ${lib.escapeShellArg value}") forced
  );
in
{
  assertions = [
    {
      assertion = lib.versionAtLeast (lib.getVersion nix) "2.18";
      message = "nixprov: jobs need a Nix daemon that can be told to trust nobody: nix ${lib.getVersion nix} is older than 2.18";
    }
  ];

  environment.etc."nixprov-revision".text = config.services.nixprov.revision;

  systemd.sockets.nixprov-nix-daemon = {
    description = "The untrusting Nix daemon's socket for GitLab jobs";
    wantedBy = [ "sockets.target" ];
    # A folder of its own: it is mounted into the jobs' containers, so the socket may be replaced inside it.
    listenStreams = [ "/run/nixprov/nix/socket" ];
    socketConfig = {
      SocketMode = "0666";
      DirectoryMode = "0755";
    };
  };

  systemd.services.nixprov-nix-daemon = {
    description = "Nix daemon that trusts no client, for GitLab jobs";
    requires = [ "nixprov-nix-daemon.socket" ];
    # As for NixOS' own daemon: builders find their tools by themselves, the daemon needs ssh and tar at the most.
    path = [
      nix
      pkgs.openssh
      pkgs.gnutar
      pkgs.gzip
    ];
    # A new system must not end the builds of running jobs: the unit of the next connection is the new one.
    restartIfChanged = false;
    unitConfig.RequiresMountsFor = "/nix/store";
    serviceConfig = {
      ExecStart = "${nix}/bin/nix ${flags} daemon --force-untrusted";
      LimitNOFILE = 1048576;
      Delegate = true;
    };
  };
}

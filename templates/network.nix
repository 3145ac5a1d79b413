# A network for the builds that may have one: a namespace with a way out and nothing of the host in it. It is made by
# the engine that makes the jobs' networks, so that builds come as far as jobs do, on every host and firewall.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.nixprov;

  start = pkgs.writeScript "nixprov-network" ''
    #!${pkgs.bash}/bin/bash
    set -euo pipefail
    engine=(${cfg.engine})
    image=$(< ${cfg.jobImage}/name)
    ask() { "''${engine[@]}" inspect --format "{{.$1}}" nixprov-network; }
    # Its only process sleeps: the container is there to hold its namespace.
    "''${engine[@]}" run --detach --replace --name nixprov-network --network bridge --read-only --cap-drop all \
      --security-opt no-new-privileges --log-driver none --stop-signal KILL "$image" /bin/sleep infinity > /dev/null
    cp "$(ask ResolvConfPath)" "$RUNTIME_DIRECTORY/resolv.conf"
    ln -sfn "$(ask NetworkSettings.SandboxKey)" "$RUNTIME_DIRECTORY/namespace"
  '';
in
{
  systemd.services.nixprov-network = lib.mkIf cfg.hasOwnDaemon {
    description = "Network of the builds of GitLab jobs";
    # Before the first job needs it, and so that a host that cannot have it says so at the switch.
    wantedBy = [ "multi-user.target" ];
    requires = [ "nixprov-image.service" ];
    after = [ "nixprov-image.service" ];
    path = [ pkgs.coreutils ];
    environment.CONTAINERS_CONF_OVERRIDE = "${cfg.engineConfiguration}";
    # Running builds are in it. The next boot brings a changed one.
    restartIfChanged = false;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      RuntimeDirectory = "nixprov/network";
      ExecStart = start;
      ExecStop = "-${cfg.engine} rm --force --time 0 nixprov-network";
      KillMode = "process";
    };
  };
}

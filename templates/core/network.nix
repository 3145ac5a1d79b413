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
  engine = cfg.container;

  start = pkgs.writeScript "nixprov-network" ''
    #!${pkgs.bash}/bin/bash
    set -euo pipefail
    engine=(${engine.command})
    image=$(< ${cfg.jobImage}/name)
    ask() { "''${engine[@]}" inspect --format "{{.$1}}" nixprov-network; }
    # Its only process sleeps: the container is there to hold its namespace.
    "''${engine[@]}" rm --force nixprov-network > /dev/null 2>&1 || true
    "''${engine[@]}" run --detach --name nixprov-network --network ${engine.network} --read-only --cap-drop all \
      --security-opt no-new-privileges --log-driver none --stop-signal KILL \
      ${lib.optionalString engine.isShared "--volume /nix/store:/nix/store:ro"} "$image" /bin/sleep infinity > /dev/null
    cp "$(ask ResolvConfPath)" "$RUNTIME_DIRECTORY/resolv.conf"
    ln -sfn "$(ask NetworkSettings.SandboxKey)" "$RUNTIME_DIRECTORY/namespace"
  '';
in
{
  systemd.services.${engine.networkUnit} = lib.mkIf cfg.hasOwnDaemon {
    description = "Network of the builds of GitLab jobs";
    # Before the first job needs it, and so that a host that cannot have it says so at the switch.
    wantedBy = [ "multi-user.target" ];
    # Not required: an image that changes must not take the network from under the builds that run.
    wants = [ "nixprov-image.service" ];
    after = [ "nixprov-image.service" ] ++ lib.optional engine.isShared "docker.service";
    # An engine of others may be restarted by them, and the namespace is another then.
    partOf = lib.optional engine.isShared "docker.service";
    path = [ pkgs.coreutils ];
    inherit (engine) environment;
    # Running builds are in it. The next boot brings a changed one.
    restartIfChanged = false;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      RuntimeDirectory = "nixprov/network";
      ExecStart = start;
      ExecStop = "-${engine.command} rm --force nixprov-network";
      KillMode = "process";
    };
  };
}

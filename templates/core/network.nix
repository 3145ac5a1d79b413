# A network for the builds that may have one: a namespace with a way out and nothing of the host in it. The engine of
# the jobs makes it, so that builds reach the same addresses as jobs, on every host and firewall.
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
    # Started at the switch, so that it is there for the first job and a failure shows at once.
    wantedBy = [ "multi-user.target" ];
    # Wanted, not required: a change of the image must not remove the network of running builds.
    wants = [ "nixprov-image.service" ];
    after = [ "nixprov-image.service" ] ++ lib.optional engine.isShared "docker.service";
    # The owner may restart a shared engine, and then the namespace is another.
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

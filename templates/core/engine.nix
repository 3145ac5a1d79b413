# The engine of the jobs: a podman of our own with its own storage, or on request the host's Docker.
# Our podman's containers and images never mix with the user's, and all of them go with one folder. In the host's Docker,
# ours have labels.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.nixprov;
  internal = import ./internal.nix { inherit lib; };

  podman = config.virtualisation.podman.package or pkgs.podman;
  docker = config.virtualisation.docker.package or pkgs.docker;
  hasDocker = config.virtualisation.docker.enable or false;

  # Every container of this engine gets the store. gitlab-runner sets a volume's mode in a container without config.toml's
  # volumes, and there the image's links would lead nowhere. That container needs no network either; jobs get theirs by
  # config.toml. The user's podman and ours do not know each other's networks, and a network without containers is not
  # visible. So ours avoids the addresses that podman gives out by default (containers.conf(5)); the last pool is among
  # them, for a host that is itself in the others.
  # From podman 4.8 on, the host's containers.conf may ask for its list to be added to, which `append = false` prevents.
  only = lib.optionalString (lib.versionAtLeast (lib.getVersion podman) "5.0") ", { append = false }";

  # The capabilities are podman's own default, without the additions of the host's containers.conf. Package managers and
  # servers of images need them (ADR 0020). gitlab-runner can set them for a job's container, but not for its services.
  overrides = pkgs.writeText "nixprov-containers.conf" ''
    [containers]
    default_capabilities = [
      "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"${only}
    ]
    pids_limit = ${toString cfg.limits.tasksPerContainer}
    volumes = [ "/nix/store:/nix/store:ro" ]
    netns = "none"
    [network]
    default_subnet_pools = [
      { base = "10.87.0.0/16", size = 24 },
      { base = "192.168.224.0/19", size = 24 },
      { base = "10.89.0.0/16", size = 24 },
    ]
  '';

  storage = "/var/lib/nixprov-containers";

  engines = {
    podman = {
      isShared = false;
      package = podman;
      # Each folder is our own. A --tmpdir shared with the user's podman would share the "alive" file (libpod/runtime.go),
      # the sign that the containers were refreshed since the boot. Only the containers of the first podman would be.
      command =
        "${podman}/bin/podman --root ${storage}/storage --runroot /run/nixprov/containers"
        + " --tmpdir /run/nixprov/libpod --network-config-dir ${storage}/networks";
      remove = "rm --force --volumes --time 0";
      environment.CONTAINERS_CONF_OVERRIDE = "${overrides}";
      socket = "/run/nixprov/podman.sock";
      group = "nixprov-runner";
      units = [ "nixprov-podman.socket" ];
      # Our own network: on the default one a job would have the user's containers for neighbours.
      network = "nixprov-jobs";
      # A name server on the bridge would need a hole in the host's firewall.
      networkOptions = "--disable-dns --opt isolate=strict --interface-name nixprov0";
      networkUnit = "nixprov-network";
    };
    docker = {
      isShared = true;
      package = docker;
      command = "${docker}/bin/docker --host unix:///run/docker.sock";
      remove = "rm --force --volumes";
      environment.DOCKER_CONFIG = "/var/empty";
      socket = "/run/docker.sock";
      group = "docker";
      units = [
        "docker.socket"
        "docker.service"
      ];
      network = "nixprov-jobs";
      networkOptions = "";
      # A different unit from podman's, so that a change of the engine stops the one and starts the other.
      networkUnit = "nixprov-docker-network";
    };
  };
in
{
  options.services.nixprov.container =
    internal lib.types.attrs engines.${cfg.engine}
      "The engine: its program with options, how it is reached, and whether others use it too.";

  config = lib.mkMerge [
    (lib.mkIf (cfg.engine == "docker") {
      assertions = [
        {
          assertion = hasDocker;
          message = "nixprov: engine is docker, and the host has none: set virtualisation.docker.enable, or take podman (nixprov_engine)";
        }
      ];
    })
    (lib.mkIf (cfg.engine == "podman") {
      # Before 4.5 podman does not read CONTAINERS_CONF_OVERRIDE, and every job would end at its start. Before 4.6 no network
      # can be isolated from all others.
      assertions = [
        {
          assertion = lib.versionAtLeast (lib.getVersion podman) "4.6";
          message = "nixprov: podman ${lib.getVersion podman} is older than 4.6: take a newer one (NixOS 23.11 has it), or the host's Docker (nixprov_engine: docker)";
        }
      ];

      # The engine's policy and registries in /etc/containers. virtualisation.podman stays as the user has it: enabling it
      # would open a socket of its own.
      virtualisation.containers.enable = lib.mkDefault true;

      systemd.sockets.nixprov-podman = {
        description = "Container engine of the GitLab jobs, Docker's API";
        wantedBy = [ "sockets.target" ];
        listenStreams = [ "/run/nixprov/podman.sock" ];
        socketConfig = {
          SocketMode = "0660";
          SocketUser = "root";
          SocketGroup = "nixprov-runner";
          DirectoryMode = "0755";
        };
      };

      systemd.services.nixprov-podman = {
        description = "Container engine of the GitLab jobs";
        requires = [ "nixprov-podman.socket" ];
        after = [ "nixprov-podman.socket" ];
        # A restart would end the running jobs. image.nix restarts it when there are none.
        restartIfChanged = false;
        path = [ podman ];
        # On a host behind a proxy, registries are reached through it.
        environment = (config.networking.proxy.envVars or { }) // engines.podman.environment;
        serviceConfig = {
          Type = "exec";
          ExecStart = "${engines.podman.command} system service --time=0";
          # Containers live outside this unit's control group. After a stop no job's container may be left.
          ExecStopPost = "-${engines.podman.command} rm --force --time 0 --filter label=com.gitlab.gitlab-runner.managed=true";
          KillMode = "process";
          Delegate = true;
        };
      };
    })
  ];
}

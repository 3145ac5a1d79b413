# What jobs run in: a podman of our own on a storage of our own, or, where that is asked for, the host's Docker.
# Our podman's containers and images never mix with the user's, and one folder removed is all of it removed. In the host's
# Docker, what is ours is told by labels.
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

  # The store for every container of this engine, also for the one in which gitlab-runner sets a volume's mode and which
  # gets none of config.toml's volumes: there the image's links would lead nowhere. That one needs no network either;
  # config.toml gives jobs theirs. The user's podman does not know of our network, nor ours of theirs, and a network in which
  # no container runs shows nowhere: so ours is not from the addresses that podman gives out (containers.conf(5)),
  # unless the host itself is where all others are.
  # A list of the host's that says so would be added to, where podman knows of that (4.8).
  only = lib.optionalString (lib.versionAtLeast (lib.getVersion podman) "5.0") ", { append = false }";

  # The capabilities are podman's own default, without what the host's containers.conf adds to it: what package managers and
  # servers of images need (ADR 0020). gitlab-runner has a word for them in a job's container and none in its services'.
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
      # Each folder of its own. Who shares --tmpdir with the user's podman shares the file that says whether the containers
      # were looked after since the boot (libpod/runtime.go, "alive"): only those of the first one would be.
      command =
        "${podman}/bin/podman --root ${storage}/storage --runroot /run/nixprov/containers"
        + " --tmpdir /run/nixprov/libpod --network-config-dir ${storage}/networks";
      remove = "rm --force --volumes --time 0";
      environment.CONTAINERS_CONF_OVERRIDE = "${overrides}";
      socket = "/run/nixprov/podman.sock";
      group = "nixprov-runner";
      units = [ "nixprov-podman.socket" ];
      # One of our own: on the default one a job would have the user's containers for neighbours.
      network = "nixprov-jobs";
      # A server of names on the bridge would need a hole in the host's firewall.
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
      # Another unit than podman's, so that a host that changes its engine stops the one and starts the other.
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
      # Before 4.5 CONTAINERS_CONF_OVERRIDE is not read, and every job would end at its start; before 4.6 no network can be
      # kept from all others.
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
        # Restarting it would end the jobs that a switch finds running; image.nix does it when there are none.
        restartIfChanged = false;
        path = [ podman ];
        # Where the host goes out by a proxy, registries are behind it.
        environment = (config.networking.proxy.envVars or { }) // engines.podman.environment;
        serviceConfig = {
          Type = "exec";
          ExecStart = "${engines.podman.command} system service --time=0";
          # Containers live outside of this unit's control group; stopped means that no job's is left.
          ExecStopPost = "-${engines.podman.command} rm --force --time 0 --filter label=com.gitlab.gitlab-runner.managed=true";
          KillMode = "process";
          Delegate = true;
        };
      };
    })
  ];
}

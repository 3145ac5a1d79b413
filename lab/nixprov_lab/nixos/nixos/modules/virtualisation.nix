# Containers: podman and Docker as NixOS sets them up.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  inherit (import ./declare.nix lib) option optional flag inert refuse;
  cfg = config.virtualisation;
  toml = value:
    if builtins.isList value
    then "[${lib.concatMapStringsSep ", " toml value}]"
    else if builtins.isBool value
    then lib.boolToString value
    else builtins.toJSON value;
  section = name: values:
    "[${name}]\n${lib.concatStrings (lib.mapAttrsToList (key: value: "${key} = ${toml value}\n") (lib.filterAttrs (_: value: !builtins.isAttrs value) values))}"
    + lib.concatStrings (lib.mapAttrsToList (
      key: value: "\n" + section "${name}.${key}" value
    ) (lib.filterAttrs (_: builtins.isAttrs) values));
  document = values: lib.concatStringsSep "\n" (lib.mapAttrsToList section values);
  sections = default:
    mkOption {
      type = types.attrsOf types.anything;
      inherit default;
      description = "Sections of the file.";
    };
in {
  options.virtualisation = {
    containers = {
      enable = flag false "Whether the files that container tools share are there.";
      containersConf.settings = sections {};
      containersConf.cniPlugins = inert;
      storage.settings = sections {
        storage = {
          driver = "overlay";
          graphroot = "/var/lib/containers/storage";
          runroot = "/run/containers/storage";
        };
      };
      registries = {
        search = option (types.listOf types.str) ["docker.io" "quay.io"] "Registries of short names.";
        insecure = option (types.listOf types.str) [] "Registries without TLS.";
        block = option (types.listOf types.str) [] "Registries that are blocked.";
      };
      policy = mkOption {
        type = types.attrs;
        default = {
          default = [{type = "insecureAcceptAnything";}];
          transports.docker-daemon."" = [{type = "insecureAcceptAnything";}];
        };
        description = "policy.json.";
      };
    };
    podman = {
      enable = flag false "Whether podman is there.";
      package = option types.package pkgs.podman "podman.";
      dockerCompat = flag false "Whether `docker` is podman.";
      dockerSocket.enable = flag false "Whether podman's socket is Docker's too.";
      enableNvidia = flag false "Without effect.";
      extraPackages = option (types.listOf types.package) [] "Without effect.";
      extraRuntimes = option (types.listOf types.package) [] "Without effect.";
      networkSocket = inert;
      autoPrune = {
        enable = flag false "Whether podman is pruned by a timer.";
        dates = option types.str "weekly" "When.";
        flags = option (types.listOf types.str) [] "Arguments of podman system prune.";
      };
      defaultNetwork.settings = option (types.attrsOf types.anything) {} "The network `podman`.";
    };
    docker = {
      enable = flag false "Whether Docker's daemon is there.";
      enableOnBoot = flag true "Whether it starts before somebody asks.";
      listenOptions = option (types.listOf types.str) ["/run/docker.sock"] "Its sockets.";
      package = option types.package pkgs.docker "Docker.";
      storageDriver = optional types.str "Where its layers are.";
      logDriver = option types.str "journald" "Where containers' output goes.";
      extraOptions = option (types.separatedString " ") "" "Arguments of dockerd.";
      daemon.settings = option (types.attrsOf types.anything) {} "daemon.json.";
      rootless = inert;
      autoPrune = inert;
    };
    oci-containers = option types.attrs {} "Not supported.";
    libvirtd = inert;
    virtualbox = inert;
    vmware = inert;
  };
  config = lib.mkMerge [
    {
      assertions = [
        (refuse "virtualisation.oci-containers" ((cfg.oci-containers.containers or {}) != {}))
        {
          assertion = cfg.podman.dockerCompat -> !cfg.docker.enable;
          message = "Option dockerCompat conflicts with docker";
        }
        {
          assertion = cfg.podman.dockerSocket.enable -> !cfg.docker.enable;
          message = ''
            The options virtualisation.podman.dockerSocket.enable and virtualisation.docker.enable conflict, because only one can serve the socket.
          '';
        }
      ];
    }
    (lib.mkIf cfg.containers.enable {
      environment.etc = {
        # Settings for the lab's kernel are in /usr/share/containers/containers.conf, which is read before this one.
        "containers/containers.conf".text = document cfg.containers.containersConf.settings;
        "containers/storage.conf".text = document cfg.containers.storage.settings;
        "containers/registries.conf".text = ''
          unqualified-search-registries = ${toml cfg.containers.registries.search}
          ${lib.concatMapStrings (location: "[[registry]]\nlocation = ${toml location}\ninsecure = true\n") cfg.containers.registries.insecure}
          ${lib.concatMapStrings (location: "[[registry]]\nlocation = ${toml location}\nblocked = true\n") cfg.containers.registries.block}
        '';
        "containers/policy.json".text = builtins.toJSON cfg.containers.policy;
      };
    })
    (lib.mkIf cfg.podman.enable {
      virtualisation.containers.enable = true;
      virtualisation.containers.containersConf.settings.network.network_backend = "netavark";
      environment.systemPackages =
        [cfg.podman.package]
        ++ lib.optional cfg.podman.dockerCompat (pkgs.runCommand "podman-docker-compat-${cfg.podman.package.version}" {} ''
          mkdir -p $out/bin
          ln -s ${cfg.podman.package}/bin/podman $out/bin/docker
        '');
      users.groups.podman = {};
      systemd.sockets.podman = {
        description = "Podman API Socket";
        documentation = ["man:podman-system-service(1)"];
        wantedBy = ["sockets.target"];
        listenStreams = ["%t/podman/podman.sock"];
        socketConfig = {
          SocketMode = "0660";
          SocketGroup = "podman";
        };
      };
      systemd.services.podman = {
        description = "Podman API Service";
        requires = ["podman.socket"];
        after = ["podman.socket"];
        documentation = ["man:podman-system-service(1)"];
        unitConfig.StartLimitIntervalSec = 0;
        environment.LOGGING = "--log-level=info";
        serviceConfig = {
          Delegate = true;
          Type = "exec";
          KillMode = "process";
          ExecStart = "${cfg.podman.package}/bin/podman $LOGGING system service";
        };
      };
      systemd.services.podman-prune = lib.mkIf cfg.podman.autoPrune.enable {
        description = "Prune podman resources";
        restartIfChanged = false;
        unitConfig.X-StopOnRemoval = false;
        serviceConfig.Type = "oneshot";
        script = "${cfg.podman.package}/bin/podman system prune -f ${toString cfg.podman.autoPrune.flags}";
        startAt = lib.toList cfg.podman.autoPrune.dates;
      };
    })
    (lib.mkIf cfg.docker.enable {
      virtualisation.docker.daemon.settings =
        {
          group = "docker";
          hosts = ["fd://"];
          log-driver = lib.mkDefault cfg.docker.logDriver;
        }
        // lib.optionalAttrs (cfg.docker.storageDriver != null) {storage-driver = cfg.docker.storageDriver;};
      environment.systemPackages = [cfg.docker.package];
      users.groups.docker = {};
      systemd.services.docker = {
        description = "Docker Application Container Engine";
        wantedBy = lib.optional cfg.docker.enableOnBoot "multi-user.target";
        after = ["network.target" "docker.socket"];
        requires = ["docker.socket"];
        serviceConfig = {
          Type = "notify";
          ExecStart = "${cfg.docker.package}/bin/dockerd --config-file=${pkgs.writeText "daemon.json" (builtins.toJSON cfg.docker.daemon.settings)} ${cfg.docker.extraOptions}";
          ExecReload = "${pkgs.procps}/bin/kill -s HUP $MAINPID";
          LimitNOFILE = 1048576;
          Delegate = true;
          KillMode = "process";
        };
      };
      systemd.sockets.docker = {
        description = "Docker Socket for the API";
        wantedBy = ["sockets.target"];
        socketConfig = {
          ListenStream = cfg.docker.listenOptions;
          SocketMode = "0660";
          SocketUser = "root";
          SocketGroup = "docker";
        };
      };
    })
    (lib.mkIf (cfg.podman.enable && cfg.podman.dockerSocket.enable) {
      systemd.sockets.podman.socketConfig.Symlinks = ["/run/docker.sock"];
      users.groups.docker = {};
    })
  ];
}

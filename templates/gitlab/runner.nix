# One unit per runner. It polls GitLab and runs jobs in containers with the host's store, read-only, and our own daemon.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.nixprov;
  engine = cfg.container;

  toml = import ./toml.nix { inherit lib; };

  # LoadCredential= came with systemd 247 (NixOS 21.05).
  hasCredentials = lib.versionAtLeast (lib.getVersion (config.systemd.package or pkgs.systemd)) "247";

  secret = name: "/var/lib/nixprov/secrets/${name}.token";

  jobEnvironment = {
    NIX_REMOTE = "daemon";
    NIX_SSL_CERT_FILE = "${cfg.certificates}";
    # In many images checkouts belong to another uid than the job's. Only git in the job reads this.
    GIT_CONFIG_COUNT = "1";
    GIT_CONFIG_KEY_0 = "safe.directory";
    GIT_CONFIG_VALUE_0 = "*";
  };

  # A user's own image has no Nix. The host's tools come last on its PATH, so that its own programs win.
  preBuild = ''
    command -v nix > /dev/null 2>&1 || export PATH="''${PATH:-/usr/bin:/bin}:${cfg.jobTools}/bin"
  '';

  settings = name: runner: let
    security = lib.optional runner.noNewPrivileges "no-new-privileges";
  in {
    concurrent = runner.concurrent;
    check_interval = 3;
    shutdown_timeout = runner.stopTimeout;
    runners = [
      {
        name = runner.description;
        url = cfg.gitlabUrl;
        id = runner.id;
        token = toml.blank "token";
        # GitLab may hold a request for a minute (long polling), and gitlab-runner warns of less than 2 at each start. It
        # never makes more requests at once than it runs jobs.
        request_concurrency = lib.max 2 (lib.min 4 runner.concurrent);
        executor = "docker";
        environment = lib.mapAttrsToList (key: value: "${key}=${value}") (jobEnvironment // runner.environment);
        pre_build_script = preBuild;
        docker = {
          host = "unix://${engine.socket}";
          image = if runner.image == null then toml.blank "image" else runner.image;
          helper_image = toml.blank "image";
          # A list needs gitlab-runner 13.8; NixOS 20.09 has an older one.
          pull_policy = "if-not-present";
          # A job may choose an image and the time of its pull. It has no choice in anything below.
          allowed_pull_policies = [
            "if-not-present"
            "always"
          ];
          privileged = false;
          services_privileged = false;
          # Docker gives these to every container and podman does not. A capability that is named twice is an error for podman.
          cap_drop = lib.subtractLists runner.capAdd [
            "AUDIT_WRITE"
            "MKNOD"
            "NET_RAW"
          ];
          network_mode = engine.network;
          container_labels.nixprov-runner = name;
          disable_cache = true;
          volumes = [
            "/nix/store:/nix/store:ro"
            "${cfg.door.folder}:/nix/var/nix/daemon-socket:ro"
          ];
        }
        // lib.filterAttrs (_: value: value != null && value != [ ]) {
          inherit (runner) memory cpus;
          memory_swap = runner.memory;
          # A job's services are containers of its own choice, too.
          service_memory = runner.memory;
          service_memory_swap = runner.memory;
          service_cpus = runner.cpus;
          allowed_images = runner.allowedImages;
          allowed_services = runner.allowedImages;
          cap_add = runner.capAdd;
          security_opt = security;
          services_security_opt = security;
        };
      }
    ];
  };

  # The parts of the configuration in order, each a file of the store or a string that the script has read. The
  # inventory's values are never searched for a place for the token.
  write =
    name: part:
    if builtins.isString part then
      "${pkgs.coreutils}/bin/cat ${pkgs.writeText "nixprov-runner-${name}.toml" part}"
    else
      "printf '\"%s\"' \"\$${part.name}\"";

  render =
    name: runner:
    pkgs.writeScript "nixprov-runner-config" ''
      #!${pkgs.bash}/bin/bash
      # The token is data to this script: read, checked, written, never evaluated, never an argument of a program.
      set -euo pipefail
      umask 077
      token=$(< "''${CREDENTIALS_DIRECTORY:-$STATE_DIRECTORY}/token")
      image=$(< ${cfg.jobImage}/name)
      case $token in
        "" | *[!A-Za-z0-9._~=+/-]*) echo "the token is empty or has characters that no GitLab token has" >&2; exit 1 ;;
      esac
      {
        ${lib.concatMapStringsSep "\n  " (write name) (toml.parts (settings name runner))}
      } > "$STATE_DIRECTORY/config.toml.new"
      ${pkgs.coreutils}/bin/mv "$STATE_DIRECTORY/config.toml.new" "$STATE_DIRECTORY/config.toml"
    '';

  # A killed runner leaves its jobs' containers running, and its next start does not look for them. Volumes, networks and
  # the containers that set a volume's mode have only GitLab's labels, which name a runner by a piece of its token. The
  # token is read from the configuration that ran last; other runners of this engine have others.
  sweep =
    name:
    pkgs.writeScript "nixprov-runner-sweep" ''
      #!${pkgs.bash}/bin/bash
      set -uo pipefail
      config=/var/lib/nixprov-runner/${name}/config.toml
      managed=label=com.gitlab.gitlab-runner.managed=true
      id=com.gitlab.gitlab-runner.runner.id
      # In the mounts of the host: with `+` too, a unit's commands have copies of them, in which the engine waits a minute
      # for a container's network to go, and then leaves it.
      engine() { /run/current-system/sw/bin/nsenter --target 1 --mount -- ${engine.command} "$@"; }

      remove() {
        mapfile -t names
        [ ''${#names[@]} -eq 0 ] || engine "$@" "''${names[@]}"
      }

      engine ps --all --quiet --filter label=nixprov-runner=${name} | remove ${engine.remove}
      [ -s "$config" ] || exit 0
      token=$(< "$config")
      token=''${token#*$'\n'token = \"}
      token=''${token%%\"*}

      # Of the names that come in, those whose runner is this one; the arguments are a command that says `ID NAME` of each.
      ours() {
        mapfile -t names
        [ ''${#names[@]} -gt 0 ] || return 0
        engine "$@" "''${names[@]}" | while read -r short name; do
          [[ ''${#short} -lt 8 || $token != *"$short"* ]] || echo "$name"
        done
      }
      engine ps --all --quiet --no-trunc --filter $managed |
        ours inspect --type container --format "{{index .Config.Labels \"$id\"}} {{.Id}}" |
        remove ${engine.remove}
      for kind in volume network; do
        engine $kind ls --quiet --filter $managed |
          ours $kind inspect --format "{{index .Labels \"$id\"}} {{.Name}}" |
          remove $kind rm --force
      done
    '';

  unit = name: runner: {
    name = "nixprov-runner-${name}";
    value = {
      description = "GitLab runner ${name} of nixprov";
      wantedBy = [ "multi-user.target" ];
      # Wanted, not required: a restart of the host's engine ends its containers anyhow, but must not end the runner.
      # The same holds for the service behind jobs' Nix, which runs as long as the runner. systemd starts nothing for a
      # socket that is about to stop, and a stop waits for the jobs.
      wants = [
        "network-online.target"
        cfg.door.service
      ]
      ++ engine.units;
      requires = [
        "nixprov-image.service"
        cfg.door.unit
      ]
      ++ lib.optionals (!engine.isShared) engine.units;
      after = [
        "network-online.target"
        "nixprov-image.service"
        cfg.door.unit
        cfg.door.service
      ]
      ++ engine.units
      ++ lib.optional (!engine.isShared) "nixprov-podman.service";
      restartTriggers = [ runner.tokenVersion ];
      # On a host behind a proxy GitLab is reached through it, as for NixOS' own gitlab-runner.
      environment = (config.networking.proxy.envVars or { }) // {
        HOME = "/var/lib/nixprov-runner/${name}";
      };
      # Never give up: GitLab may be down for longer than any limit of starts allows.
      unitConfig.StartLimitIntervalSec = 0;
      serviceConfig = import ./hardening.nix // {
        User = "nixprov-runner";
        Group = "nixprov-runner";
        SupplementaryGroups = [ engine.group ];
        StateDirectory = "nixprov-runner/${name}";
        StateDirectoryMode = "0700";
        WorkingDirectory = "/var/lib/nixprov-runner/${name}";
        ExecStartPre =
          lib.optional (
            !hasCredentials
          ) "+${pkgs.coreutils}/bin/install -m 0400 -o nixprov-runner ${secret name} /var/lib/nixprov-runner/${name}/token"
          ++ [
            "+-${sweep name}"
            "${render name runner}"
          ];
        ExecStopPost = "+-${sweep name}";
        ExecStart = "${pkgs.gitlab-runner}/bin/gitlab-runner run --config /var/lib/nixprov-runner/${name}/config.toml --working-directory /var/lib/nixprov-runner/${name}";
        ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
        Restart = "always";
        RestartSec = 5;
        # SIGQUIT: take no new jobs, finish the running ones (gitlab-runner, "Signals").
        KillSignal = "SIGQUIT";
        KillMode = "mixed";
        TimeoutStopSec = runner.stopTimeout;

        ProtectProc = "invisible";
        RestrictAddressFamilies = [
          "AF_INET"
          "AF_INET6"
          "AF_UNIX"
        ];
        SystemCallFilter = [
          "@system-service"
          "~@privileged"
        ];
      }
      // lib.optionalAttrs hasCredentials { LoadCredential = "token:${secret name}"; };
    };
  };
in
{
  users.users.nixprov-runner = {
    isSystemUser = true;
    group = "nixprov-runner";
    description = "GitLab runners of nixprov";
  };
  users.groups.nixprov-runner = { };

  systemd.services = lib.mapAttrs' (name: runner: let u = unit name runner; in lib.nameValuePair u.name u.value) cfg.runners;
}

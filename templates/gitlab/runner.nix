# One unit per runner: polls GitLab, runs jobs in containers that see the host's store read-only and our own daemon.
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
    # Checkouts belong to another uid than the job's in many images; only git in the job reads this.
    GIT_CONFIG_COUNT = "1";
    GIT_CONFIG_KEY_0 = "safe.directory";
    GIT_CONFIG_VALUE_0 = "*";
  };

  # A user's own image has no Nix: the host's tools come last on its PATH, its own programs win.
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
        # never has more of them than it works on jobs.
        request_concurrency = lib.max 2 (lib.min 4 runner.concurrent);
        executor = "docker";
        environment = lib.mapAttrsToList (key: value: "${key}=${value}") (jobEnvironment // runner.environment);
        pre_build_script = preBuild;
        docker = {
          host = "unix://${engine.socket}";
          image = if runner.image == null then toml.blank "image" else runner.image;
          helper_image = toml.blank "image";
          # A list is read by gitlab-runner 13.8 and newer only; NixOS 20.09 has an older one.
          pull_policy = "if-not-present";
          # What a job may ask for: an image, and when it is pulled. Nothing below can be asked for.
          allowed_pull_policies = [
            "if-not-present"
            "always"
          ];
          privileged = false;
          services_privileged = false;
          # What Docker gives to every container and podman does not; a capability that is named twice is an error to podman.
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
          # A job's services are containers too, of its own choice.
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

  # The configuration's parts in their order, each a file of the store or a string that the script has read: what is in
  # the inventory's values is never looked at for a place to put the token.
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

  # A runner that was killed leaves its jobs' containers running, and the next start does not look for them. Those that
  # set a volume's mode, the volumes and the networks have GitLab's labels alone, which name a runner by a piece of its
  # token. The token is that of the configuration that ran last; other runners of this engine have another.
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
      # Not required: a restart of the host's engine is the end of its containers anyhow, not of the runner.
      # Nor is who answers jobs' Nix, but it runs as long as the runner does: systemd starts nothing for a socket that is to stop,
      # and a stop waits for the jobs.
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
      # Where the host goes out by a proxy GitLab is behind it too, as for NixOS' own gitlab-runner.
      environment = (config.networking.proxy.envVars or { }) // {
        HOME = "/var/lib/nixprov-runner/${name}";
      };
      # Never give up: GitLab may be down for longer than any counter of starts.
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
        # SIGQUIT: no new jobs, finish those that run (gitlab-runner, "Signals").
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

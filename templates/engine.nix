# What jobs run in: a podman of our own on a storage of our own, and an image that is links into the host's store.
# Its containers and images never mix with the user's, and one folder removed is all of it removed.
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
  engine = cfg.engine;
  engineCommand = "${podman}/bin/podman --root /var/lib/nixprov-containers/storage --runroot /run/nixprov/containers";

  tools = pkgs.buildEnv {
    name = "nixprov-job-tools";
    paths = [
      pkgs.bash
      pkgs.coreutils
      pkgs.cacert
      pkgs.curl
      pkgs.diffutils
      pkgs.findutils
      pkgs.gawk
      pkgs.git
      pkgs.gnugrep
      pkgs.gnused
      pkgs.gnutar
      pkgs.gzip
      pkgs.openssh
      pkgs.xz
      (config.nix.package or pkgs.nix)
    ]
    ++ cfg.jobPackages;
    pathsToLink = [
      "/bin"
      "/etc"
      "/libexec"
      "/share"
    ];
    ignoreCollisions = true;
  };

  # The host's own bundle knows the company's authorities (security.pki); it is a store path, so jobs see it.
  hostBundle = config.environment.etc."ssl/certs/ca-certificates.crt".source or null;
  certificates =
    if hostBundle != null && lib.hasPrefix builtins.storeDir "${hostBundle}" then
      "${hostBundle}"
    else
      "${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt";

  # Root in the container is nobody to our daemon; names are for programs that ask who they are.
  passwd = pkgs.writeText "nixprov-job-passwd" ''
    root:x:0:0:root:/root:/bin/sh
    nobody:x:65534:65534:nobody:/var/empty:/bin/false
  '';
  group = pkgs.writeText "nixprov-job-group" ''
    root:x:0:
    nobody:x:65534:
    nogroup:x:65533:
  '';
  nsswitch = pkgs.writeText "nixprov-job-nsswitch" ''
    passwd: files
    group: files
    hosts: files dns
  '';
  nixConf = pkgs.writeText "nixprov-job-nix.conf" ''
    experimental-features = nix-command flakes
    build-users-group =
  '';

  # The layout of `docker save` (https://github.com/moby/docker-image-spec), written by hand: one layer of links weighs
  # a few kilobytes, while dockerTools would copy the closure that the mounted store already has.
  image = pkgs.runCommand "nixprov-job-image" { } ''
    export PATH=${pkgs.coreutils}/bin:${pkgs.gnutar}/bin:${pkgs.gnused}/bin
    mkdir -p tree/{bin,usr/bin,etc/nix,etc/ssl/certs,root,tmp,var/empty,var/tmp,nix/store,nix/var/nix/daemon-socket,builds,cache}
    for tool in ${tools}/bin/*; do
      ln -s "$tool" "tree/bin/''${tool##*/}"
    done
    ln -s ${tools}/bin/env tree/usr/bin/env
    # The docker executor calls its helper by this name; the runner's own program has the helper's commands.
    ln -s ${pkgs.gitlab-runner}/bin/gitlab-runner tree/usr/bin/gitlab-runner-helper
    ln -s ${certificates} tree/etc/ssl/certs/ca-bundle.crt
    ln -s ${certificates} tree/etc/ssl/certs/ca-certificates.crt
    # What the helper's container runs: the stage's script comes on standard input.
    printf '#!/bin/sh\numask 0000\nexec /bin/bash\n' > tree/usr/bin/gitlab-runner-build
    # The runner's own first line asks for it, and coreutils' are often built without.
    printf '#!/bin/sh\ncat /proc/sys/kernel/hostname\n' > tree/usr/bin/hostname
    chmod 0755 tree/usr/bin/gitlab-runner-build tree/usr/bin/hostname
    # Copies, as users' scripts append to them and engines mount over them.
    cp ${passwd} tree/etc/passwd
    cp ${group} tree/etc/group
    cp ${nsswitch} tree/etc/nsswitch.conf
    cp ${nixConf} tree/etc/nix/nix.conf
    chmod 1777 tree/tmp tree/var/tmp
    chmod 0700 tree/root

    tar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner -C tree -cf layer.tar .
    layer=$(sha256sum layer.tar | cut -d' ' -f1)
    printf '%s' ${lib.escapeShellArg (builtins.toJSON imageConfig)} | sed "s/@LAYER@/$layer/" > config.json
    digest=$(sha256sum config.json | cut -d' ' -f1)
    mkdir -p $out
    # The tag is what the image is, so a job never runs in another one than the configuration names.
    printf 'localhost/nixprov-job:%s' "$(printf '%s' "$out" | sha256sum | cut -c1-16)" > $out/name
    printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$(cat $out/name)" > manifest.json
    tar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner -cf $out/image.tar manifest.json config.json layer.tar
  '';

  imageConfig = {
    architecture = if lib.hasPrefix "aarch64" pkgs.stdenv.hostPlatform.system then "arm64" else "amd64";
    os = "linux";
    config = {
      Cmd = [ "/bin/bash" ];
      Env = [
        "PATH=/bin:/usr/bin"
        "HOME=/root"
        "USER=root"
        "GIT_SSL_CAINFO=${certificates}"
        "SSL_CERT_FILE=${certificates}"
      ];
      WorkingDir = "/";
      Labels."nixprov.image" = "job";
    };
    rootfs = {
      type = "layers";
      diff_ids = [ "sha256:@LAYER@" ];
    };
  };

  # The store for every container of this engine, also for the one in which gitlab-runner sets a volume's mode and which
  # gets none of config.toml's volumes: there the image's links would lead nowhere. That one needs no network either;
  # config.toml gives jobs theirs.
  overrides = pkgs.writeText "nixprov-containers.conf" ''
    [containers]
    volumes = [ "/nix/store:/nix/store:ro" ]
    netns = "none"
  '';

  load = pkgs.writeScript "nixprov-image-load" ''
    #!${pkgs.bash}/bin/bash
    set -euo pipefail
    engine=(${engine})
    name=$(< ${image}/name)
    "''${engine[@]}" image exists "$name" || "''${engine[@]}" load --quiet --input ${image}/image.tar
    # Images of earlier systems; one that a running job still uses is refused, and goes next time.
    "''${engine[@]}" images --format '{{.Repository}}:{{.Tag}}' --filter label=nixprov.image=job |
      while read -r old; do
        [ "$old" = "$name" ] || "''${engine[@]}" rmi "$old" || true
      done
  '';
in
{
  options.services.nixprov = {
    jobImage = internal lib.types.package image "The image of links: a folder with `name` and `image.tar`.";
    jobTools = internal lib.types.package tools "The programs that jobs find on their PATH.";
    certificates = internal lib.types.str certificates "The authorities that jobs trust, a file in the store.";
    engine = internal lib.types.str engineCommand "The engine's program on our own storage, with its options.";
    engineConfiguration =
      internal lib.types.package overrides
        "What goes over the host's containers.conf for our engine: CONTAINERS_CONF_OVERRIDE.";
  };

  config = {
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
      # Restarting it would end the jobs that a switch finds running.
      restartIfChanged = false;
      path = [ podman ];
      environment.CONTAINERS_CONF_OVERRIDE = "${overrides}";
      serviceConfig = {
        Type = "exec";
        ExecStart = "${engine} system service --time=0";
        # Containers live outside of this unit's control group; stopped means that no job's is left.
        ExecStopPost = "-${engine} rm --force --time 0 --filter label=com.gitlab.gitlab-runner.managed=true";
        KillMode = "process";
        Delegate = true;
      };
    };

    systemd.services.nixprov-image = {
      description = "Image of the GitLab jobs, made of links into the store";
      wantedBy = [ "multi-user.target" ];
      path = [ podman ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = load;
      };
    };
  };
}

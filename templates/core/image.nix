# The image of jobs that name none: links into the host's store, with the programs that every job needs.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.nixprov;
  engine = cfg.container;
  internal = import ./internal.nix { inherit lib; };

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

  # Root in the container has no rights at our daemon. The names are for programs that look up their own user.
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

  # The layout of `docker save` (https://github.com/moby/docker-image-spec), written by hand. One layer of links has a few
  # kilobytes. dockerTools would copy the closure that the mounted store already has.
  image = pkgs.runCommand "nixprov-job-image" { } ''
    export PATH=${pkgs.coreutils}/bin:${pkgs.findutils}/bin:${pkgs.gnutar}/bin:${pkgs.gnused}/bin
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
    ${lib.optionalString engine.isShared ''
      # gitlab-runner's helper sets a volume's mode in a container that gets none of config.toml's volumes. Where the engine
      # mounts the store by itself its link leads somewhere; here it has to be in the image. Jobs see the host's store over it.
      xargs -a ${pkgs.closureInfo { rootPaths = [ pkgs.gitlab-runner ]; }}/store-paths cp -a --target-directory tree/nix/store
      chmod -R u+w tree/nix/store
    ''}
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

  # Prepares the image and our own network, before any job.
  load = pkgs.writeScript "nixprov-image-load" ''
    #!${pkgs.bash}/bin/bash
    set -euo pipefail
    engine=(${engine.command})
    name=$(< ${image}/name)
    ${lib.optionalString (!engine.isShared) ''
      # It may still be of the system before, with other options; and no runner runs, as each requires this unit.
      systemctl try-restart nixprov-podman.service
    ''}
    "''${engine[@]}" image inspect "$name" > /dev/null 2>&1 || "''${engine[@]}" load --quiet --input ${image}/image.tar
    "''${engine[@]}" network inspect ${engine.network} > /dev/null 2>&1 ||
      "''${engine[@]}" network create --label nixprov ${engine.networkOptions} ${engine.network} > /dev/null
    ${forget "$name"}
  '';

  # Removes our image and network from the engine, with the unit. A switch to another image runs this too.
  unload = pkgs.writeScript "nixprov-image-unload" ''
    #!${pkgs.bash}/bin/bash
    set -euo pipefail
    engine=(${engine.command})
    "''${engine[@]}" network prune --force --filter label=nixprov > /dev/null || true
    ${forget ""}
  '';

  # Removes our images of earlier systems, all but `kept`. An image in use by a running job stays until the next time.
  forget = kept: ''
    "''${engine[@]}" images --format '{{.Repository}}:{{.Tag}}' --filter label=nixprov.image=job |
      while read -r old; do
        [ "$old" = "${kept}" ] || "''${engine[@]}" rmi "$old" || true
      done
  '';
in
{
  options.services.nixprov = {
    jobImage = internal lib.types.package image "The image of links: a folder with `name` and `image.tar`.";
    jobTools = internal lib.types.package tools "The programs that jobs find on their PATH.";
    certificates = internal lib.types.str certificates "The authorities that jobs trust, a file in the store.";
  };

  config.systemd.services.nixprov-image = {
    description = "Image of the GitLab jobs, made of links into the store";
    wantedBy = [ "multi-user.target" ];
    wants = engine.units;
    after = engine.units;
    path = [ engine.package ];
    inherit (engine) environment;
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = load;
    }
    // lib.optionalAttrs engine.isShared { ExecStop = "-${unload}"; };
  };
}

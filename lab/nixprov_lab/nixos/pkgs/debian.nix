# Packages made of Debian's programs. debian.json, written by install.sh, lists the programs of each Debian package.
#
# `copied` packages work where only /nix/store is mounted, as in a job's container. Programs and their `libraries` are
# copied, and start through the copied loader. Their builds read Debian's /usr, so they only succeed without a sandbox.
# install.sh makes them all, once, and keeps them from the garbage collector.
# `linked` packages are for the machine itself and point into /usr.
{
  lib,
  pkgs,
  system,
}: let
  inherit (lib) mapAttrs;
  debian = builtins.fromJSON (builtins.readFile ./debian.json);
  entry = name: debian.${name} or (throw "the lab's tree has no Debian package `${name}'");
  python = "/opt/lab/bin/python3";

  describe = name: source: drv:
    drv
    // {
      pname = name;
      inherit (entry source) version;
      meta = {
        mainProgram = name;
        description = "Debian's ${source}";
      };
      override = throw "${name}.override: not supported by the stand-in NixOS";
      overrideAttrs = throw "${name}.overrideAttrs: not supported by the stand-in NixOS";
    };

  # Outside of any sandbox, by Debian's own shell and tools.
  onDebian = name: env: script:
    derivation (
      {
        inherit name system;
        builder = "/bin/sh";
        args = [script];
        PATH = "/usr/sbin:/usr/bin";
        inherit python;
      }
      // env
    );

  copiedSources = {
    bash = "bash";
    coreutils = "coreutils";
    findutils = "findutils";
    diffutils = "diffutils";
    gnugrep = "grep";
    gnused = "sed";
    gnutar = "tar";
    gzip = "gzip";
    bzip2 = "bzip2";
    xz = "xz-utils";
    gawk = "mawk";
    curl = "curl";
    openssh = "openssh-client";
    nix = "nix-bin";
  };
  programsOf = name: (entry name).programs;

  libraries =
    onDebian "debian-libraries-${(entry "libc6").version}" {
      programs = lib.concatMap programsOf (builtins.attrValues copiedSources) ++ programsOf "git" ++ [python];
      folders = ["/usr/lib/git-core" "/usr/lib/python3.*/lib-dynload"];
    }
    ./copy-libraries.sh;

  copy = name: source:
    describe name source (
      onDebian "${name}-${(entry source).version}" {
        programs = programsOf source;
        inherit libraries;
        relocate = ./relocate.py;
        shell = pkgs.busybox;
        extra =
          lib.optionalString (name == "gawk") "ln -s mawk $out/bin/awk; ln -s mawk $out/bin/gawk" + lib.optionalString (name == "bash") "ln -s bash $out/bin/sh";
      }
      ./copy-programs.sh
    );

  link = name: source:
    describe name source (
      pkgs.runCommand "${name}-${(entry source).version}" {programs = programsOf source;} ''
        mkdir -p $out/bin
        for program in $programs; do ln -sf "$program" $out/bin/; done
        ln -s bin $out/sbin
      ''
    );

  copied = mapAttrs copy copiedSources;
  linked = mapAttrs link {
    crun = "crun";
    dbus = "dbus-bin";
    getent = "libc-bin";
    hostname-debian = "hostname";
    iproute2 = "iproute2";
    login = "login";
    mount = "mount";
    ncurses = "ncurses-bin";
    nftables = "nftables";
    procps = "procps";
    shadow = "passwd";
    sudo = "sudo";
    util-linux = "util-linux";
    bsdutils = "bsdutils";
  };
in
  copied
  // linked
  // {
    bash = copied.bash // {shellPath = "/bin/bash";};
    bashInteractive = pkgs.bash;
    bashNonInteractive = pkgs.bash;
    nixVersions.stable = pkgs.nix;
    nixVersions.latest = pkgs.nix;
    openssh = copied.openssh // {meta = copied.openssh.meta // {mainProgram = "ssh";};};
    opensshClient = pkgs.openssh;
    inherit libraries;

    busybox = describe "busybox" "busybox-static" (
      onDebian "busybox-${(entry "busybox-static").version}" {} ./copy-busybox.sh
    );

    git = describe "git" "git" (
      onDebian "git-${(entry "git").version}" {
        inherit libraries;
        relocate = ./relocate.py;
        shell = pkgs.busybox;
      }
      ./copy-git.sh
    );
    gitMinimal = pkgs.git;

    python3 = describe "python3" "python3-minimal" (
      onDebian "python3-${(entry "python3-minimal").version}" {
        inherit libraries;
        relocate = ./relocate.py;
      }
      ./copy-python.sh
    );

    cacert = describe "cacert" "ca-certificates" (
      onDebian "nss-cacert-${(entry "ca-certificates").version}" {} ./copy-certificates.sh
    );

    systemd =
      describe "systemd" "systemd" (
        pkgs.runCommand "systemd-${(entry "systemd").version}" {programs = programsOf "systemd" ++ programsOf "systemd-sysv";} ''
          mkdir -p $out/bin $out/example/systemd
          for program in $programs; do ln -sf "$program" $out/bin/; done
          ln -s bin $out/sbin
          ln -s /usr/lib $out/lib
          ln -s /usr/lib/systemd/system $out/example/systemd/system
        ''
      )
      // {meta.mainProgram = "systemctl";};

    # podman searches its helpers in PATH, where NixOS' wrapper puts them.
    podman = describe "podman" "podman" (
      pkgs.runCommand "podman-${(entry "podman").version}" {} ''
        mkdir -p $out/bin
        printf '%s\n' '#!${pkgs.runtimeShell}' 'export PATH=/usr/sbin:/usr/bin''${PATH:+:$PATH}' 'exec /usr/bin/podman "$@"' > $out/bin/podman
        chmod +x $out/bin/podman
      ''
    );

    # The same for docker; its daemon and client are two of Debian's packages.
    docker =
      describe "docker" "docker.io" (
        pkgs.runCommand "docker-${(entry "docker.io").version}" {} ''
          mkdir -p $out/bin
          for program in docker dockerd; do
            printf '%s\n' '#!${pkgs.runtimeShell}' 'export PATH=/usr/sbin:/usr/bin''${PATH:+:$PATH}' "exec $program \"\$@\"" > $out/bin/$program
            chmod +x $out/bin/$program
          done
        ''
      )
      // {meta.mainProgram = "docker";};

    # Programs of the host from other packages than on NixOS, and applets.
    hostname = pkgs.hostname-debian;
    systemdMinimal = pkgs.systemd;
  }
  // lib.genAttrs ["less" "tree" "unzip" "vim" "wget" "which"] (
    # Common entries of environment.systemPackages, made of busybox.
    name:
      pkgs.runCommand "${name}-busybox" {meta.mainProgram = name;} ''
        mkdir -p $out/bin
        ln -s ${pkgs.busybox}/bin/busybox $out/bin/${
          if name == "vim"
          then "vi"
          else name
        }
        ${lib.optionalString (name == "vim") "ln -s vi $out/bin/vim"}
      ''
  )

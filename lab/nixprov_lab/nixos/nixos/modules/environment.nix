# PATH and the environment of sessions.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  inherit (import ./declare.nix lib) option flag;
  cfg = config.environment;
  text = option types.lines "" "Shell code.";
  variables = mkOption {
    type =
      types.attrsOf (types.nullOr (types.oneOf [types.int types.str types.path (types.listOf (types.oneOf [types.int types.str types.path]))]));
    default = {};
    description = "Environment variables.";
    apply = lib.mapAttrs (_: value:
      if builtins.isList value
      then lib.concatMapStringsSep ":" toString value
      else if value == null
      then null
      else toString value);
  };
  profiles = ["$HOME/.nix-profile" "/etc/profiles/per-user/$USER" "/nix/var/nix/profiles/default" "/run/current-system/sw"];
  path = "/run/wrappers/bin:" + lib.concatMapStringsSep ":" (profile: "${profile}/bin") profiles;
  set = lib.filterAttrs (_: value: value != null) (cfg.sessionVariables // cfg.variables);
  # For pam_env, which knows neither $HOME nor $USER.
  plainPath = "/run/wrappers/bin:/nix/var/nix/profiles/default/bin:/run/current-system/sw/bin";
  required = with pkgs; [
    coreutils
    bashInteractive
    bsdutils
    bzip2
    curl
    dbus
    diffutils
    findutils
    gawk
    getent
    gnugrep
    gnused
    gnutar
    gzip
    hostname
    iproute2
    less
    mount
    ncurses
    openssh
    procps
    shadow
    systemd
    util-linux
    which
    xz
  ];
in {
  options.environment = {
    systemPackages = option (types.listOf types.package) [] "Packages in the system profile.";
    defaultPackages = option (types.listOf types.package) [] "Packages that are not strictly necessary.";
    pathsToLink =
      option (types.listOf types.str) [
      ] "Directories of packages that are linked into the system profile.";
    extraOutputsToInstall =
      option (types.listOf types.str) [
      ] "Without effect: the stand-in's packages have one output.";
    inherit variables;
    sessionVariables = variables;
    shellAliases =
      option (types.attrsOf (types.nullOr (types.either types.str types.path))) {} "Aliases of interactive shells.";
    shellInit = text;
    loginShellInit = text;
    interactiveShellInit = text;
    extraInit = text;
    extraSetup = text;
    localBinInPath = flag false "Add ~/.local/bin/ to $PATH.";
    shells = option (types.listOf (types.either types.shellPackage types.path)) [] "Login shells.";
  };
  config = {
    environment.pathsToLink = ["/bin" "/etc/xdg" "/lib" "/libexec" "/sbin" "/share"];
    environment.etc = {
      "set-environment".source = pkgs.writeText "set-environment" ''
        # Prevent this file from being sourced by child shells.
        export __NIXOS_SET_ENVIRONMENT_DONE=1
        ${lib.concatStrings (lib.mapAttrsToList (name: value: "export ${name}=\"${lib.replaceStrings ["\""] ["\\\""] value}\"\n") set)}
        export PATH="${lib.optionalString cfg.localBinInPath "$HOME/.local/bin:"}${path}"
        ${cfg.extraInit}
      '';
      "profile".text = ''
        if [ -n "$__ETC_PROFILE_SOURCED" ]; then return; fi
        __ETC_PROFILE_SOURCED=1
        if [ -z "$__NIXOS_SET_ENVIRONMENT_DONE" ]; then . /etc/set-environment; fi
        ${cfg.shellInit}
        ${cfg.loginShellInit}
        if [ -n "$BASH_VERSION" ] && [ -r /etc/bashrc ]; then . /etc/bashrc; fi
      '';
      "bashrc".text = ''
        if [ -n "$__ETC_BASHRC_SOURCED" ]; then return; fi
        __ETC_BASHRC_SOURCED=1
        if [ -z "$__NIXOS_SET_ENVIRONMENT_DONE" ]; then . /etc/set-environment; fi
        if [ -n "$PS1" ]; then
          PS1='\n\[\033[1;32m\][\u@\h:\w]\$\[\033[0m\] '
          ${lib.concatStrings (lib.mapAttrsToList (name: value: "alias -- ${name}=${lib.escapeShellArg value}\n") (lib.filterAttrs (_: value: value != null) cfg.shellAliases))}
          ${cfg.interactiveShellInit}
        fi
      '';
      "bash.bashrc".text = ". /etc/bashrc\n";
      # sshd's sessions get these through pam_env, even when no shell reads a file.
      "environment".text = lib.concatStrings (lib.mapAttrsToList (name: value: "${name}=\"${value}\"\n") (cfg.sessionVariables
        // {
          PATH = plainPath;
        }));
    };
    system.path = pkgs.buildEnv {
      name = "system-path";
      paths = cfg.systemPackages ++ cfg.defaultPackages ++ required;
      inherit (cfg) pathsToLink;
      ignoreCollisions = true;
      postBuild = cfg.extraSetup;
    };
  };
}

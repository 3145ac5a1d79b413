# The system itself: one store path with everything that a switch needs.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  inherit (import ./declare.nix lib) option required optional flag inert refuse;
  cfg = config.system;
  text = description:
    mkOption {
      type = types.lines;
      default = "";
      inherit description;
    };
  tools = with pkgs; [systemd coreutils gnugrep gnused gawk findutils diffutils util-linux];

  snippet = types.either types.str (types.submodule {
    options = {
      deps = option (types.listOf types.str) [] "Snippets that run before this one.";
      text = required types.lines "Shell code.";
      supportsDryActivation = flag false "Whether it heeds NIXOS_ACTION=dry-activate.";
    };
  });
  snippets = lib.mapAttrs (_: value:
    if builtins.isString value
    then {
      deps = [];
      text = value;
      supportsDryActivation = false;
    }
    else value)
  cfg.activationScripts;
  ordered = set: let
    visit = state: name:
      if builtins.elem name state
      then state
      else if set ? ${name}
      then builtins.foldl' visit state (builtins.filter (dep: set ? ${dep}) set.${name}.deps) ++ [name]
      else throw "system.activationScripts: there is no `${name}'";
  in
    lib.unique (builtins.foldl' visit [] (builtins.attrNames set));
  activation = set: last:
    ''
      #!${pkgs.runtimeShell}
      systemConfig='@out@'
      export PATH=/empty
      for i in ${toString tools}; do PATH=$PATH:$i/bin:$i/sbin; done
      PATH=$PATH:/usr/sbin:/usr/bin
      _status=0
      trap "_status=1 _localstatus=\$?" ERR
      umask 0022
    ''
    + lib.concatMapStrings (name: ''
      # Activation script snippet ${name}:
      _localstatus=0
      ${set.${name}.text}
      if (( _localstatus > 0 )); then
        printf "Activation script snippet '%s' failed (%s)\n" "${name}" "$_localstatus" >&2
      fi
    '') (ordered set)
    + last;
  activate = activation snippets ''
    # Make this configuration the current configuration.
    # The readlink is there to ensure that when $systemConfig = /system
    # (which is a symlink to the store), /run/current-system is still
    # used as a garbage collection root.
    ln -sfn "$(readlink -f "$systemConfig")" /run/current-system
    mkdir -p /nix/var/nix/gcroots
    ln -sfn /run/current-system /nix/var/nix/gcroots/current-system
    exit $_status
  '';
  dryActivate = activation (lib.filterAttrs (_: value: value.supportsDryActivation) snippets) "exit $_status\n";

  checks = pkgs.writeScript "pre-switch-checks" (
    "#!${pkgs.runtimeShell}\n"
    + lib.concatStrings (
      lib.mapAttrsToList (name: text: ''
        if ! (${text}
        ) >&2; then echo "Pre-switch check '${name}' failed" >&2; exit 1; fi
      '') (removeAttrs cfg.preSwitchChecks ["check" "enabledChecks"])
    )
  );

  failed = map (entry: entry.message) (builtins.filter (entry: !entry.assertion) config.assertions);
  build =
    pkgs.runCommand "nixos-system-${cfg.name}-${cfg.nixos.label}" {
      inherit activate dryActivate;
      passAsFile = ["activate" "dryActivate" "extraDependencies"];
      extraDependencies = map toString cfg.extraDependencies;
      switchToConfiguration = ../../tools/switch-to-configuration.sh;
      stage2 = ../../tools/init.sh;
      inherit (pkgs) runtimeShell;
      tools = lib.concatMapStringsSep ":" (package: "${package}/bin") tools;
      installBootLoader =
        if config.boot.loader.external.enable or false
        then config.boot.loader.external.installHook
        else "true";
    } ''
      mkdir $out $out/bin $out/specialisation
      substitute() { sed -e "s|@out@|$out|g" -e "s|@shell@|$runtimeShell|g" -e "s|@path@|$tools|g" -e "s|@installBootLoader@|$installBootLoader|g" "$1" > "$2"; chmod +x "$2"; }
      substitute "$activatePath" $out/activate
      substitute "$dryActivatePath" $out/dry-activate
      substitute "$switchToConfiguration" $out/bin/switch-to-configuration
      substitute "$stage2" $out/init
      ln -s ${cfg.build.etc}/etc $out/etc
      ln -s ${cfg.path} $out/sw
      ln -s ${config.systemd.package} $out/systemd
      ln -s ${checks} $out/pre-switch-checks
      printf %s '${cfg.nixos.label}' > $out/nixos-version
      printf %s '${pkgs.system}' > $out/system
      printf 'systemd 2' > $out/init-interface-version
      printf %s '${toString (config.boot.kernelParams or [])}' > $out/kernel-params
      cp "$extraDependenciesPath" $out/extra-dependencies
      ${lib.optionalString (cfg.configurationRevision != null) "printf %s ${lib.escapeShellArg cfg.configurationRevision} > $out/configuration-revision"}
      ${lib.optionalString cfg.copySystemConfiguration "ln -s ${import ../lib/from-env.nix} $out/configuration.nix"}
      ${cfg.systemBuilderCommands}
      ${cfg.extraSystemBuilderCmds}
    '';
  toplevel =
    if failed != []
    then throw "\nFailed assertions:\n${lib.concatMapStringsSep "\n" (message: "- ${message}") failed}"
    else lib.showWarnings config.warnings build;

  tool = name: file:
    pkgs.runCommand name {meta.mainProgram = name;} ''
      mkdir -p $out/bin
      sed -e 's|@shell@|${pkgs.runtimeShell}|' \
          -e 's|@nix@|${config.nix.package}|' \
          -e 's|@path@|${lib.concatMapStringsSep ":" (package: "${package}/bin") (tools ++ [pkgs.git pkgs.hostname])}|' \
          -e 's|@version@|${cfg.nixos.version}|' \
          -e 's|@codeName@|${cfg.nixos.codeName}|' \
          -e 's|@revision@|${toString cfg.configurationRevision}|' ${file} > $out/bin/${name}
      chmod +x $out/bin/${name}
    '';
in {
  imports = [(lib.mkRemovedOptionModule ["environment" "checkConfigurationOptions"] "Use _module.check.")];
  options = {
    system = {
      stateVersion = option types.str cfg.nixos.release "The release the machine's data is of.";
      name = option types.str (
        if config.networking.hostName == ""
        then "unnamed"
        else config.networking.hostName
      ) "The name of the system in its store path.";
      build = option (types.lazyAttrsOf types.unspecified) {} "What can be built of the system.";
      path = mkOption {
        type = types.package;
        internal = true;
        description = "The system profile.";
      };
      activationScripts = option (types.attrsOf snippet) {} "Shell code that makes the running machine this system.";
      userActivationScripts = inert;
      preSwitchChecks =
        option (types.attrsOf types.str) {} "Shell code that may refuse a switch: the new system and the action are its arguments.";
      extraDependencies = option (types.listOf types.pathInStore) [] "Paths the system keeps.";
      extraSystemBuilderCmds = text "Shell code of the system's build.";
      systemBuilderCommands = text "The same by its new name.";
      copySystemConfiguration = flag false "Whether the system has its configuration.nix.";
      configurationRevision = optional types.str "The revision of the configuration.";
      checks = option (types.listOf types.package) [] "What must build with the system.";
      autoUpgrade = inert;
      tools = inert;
      rebuild = inert;
      switch = inert;
      nixos = {
        release = mkOption {
          type = types.str;
          readOnly = true;
          default = lib.trivial.release;
          description = "The release.";
        };
        codeName = mkOption {
          type = types.str;
          readOnly = true;
          default = lib.trivial.codeName;
          description = "The release's name.";
        };
        version = option types.str "${lib.trivial.release}.20251130.nixprov-lab" "The version.";
        versionSuffix = option types.str ".20251130.nixprov-lab" "What is behind the release in the version.";
        label = option (types.strMatching "[a-zA-Z0-9:_.-]*") cfg.nixos.version "The version, as in the system's name.";
        tags = option (types.listOf types.str) [] "Without effect.";
        revision = optional types.str "The revision of nixpkgs.";
        variant_id = option (types.nullOr types.str) "nixprov-lab" "VARIANT_ID in os-release.";
        distroId = option types.str "nixos" "ID in os-release.";
        distroName = option types.str "NixOS" "NAME in os-release.";
      };
    };
    specialisation = option types.attrs {} "Not supported.";
  };
  config = {
    assertions = [(refuse "specialisation" (config.specialisation != {}))];
    system.build = {
      inherit toplevel;
      nixos-rebuild = tool "nixos-rebuild" ../../tools/nixos-rebuild.sh;
    };
    warnings =
      lib.optional (!(lib.hasInfix "." cfg.stateVersion)) "system.stateVersion is not a release: ${cfg.stateVersion}";
    environment.systemPackages = [cfg.build.nixos-rebuild (tool "nixos-version" ../../tools/nixos-version.sh)];
    environment.etc = {
      "os-release".text = ''
        ANSI_COLOR="0;38;2;126;186;228"
        BUG_REPORT_URL="https://github.com/NixOS/nixpkgs/issues"
        BUILD_ID="${cfg.nixos.version}"
        HOME_URL="https://nixos.org/"
        ID=${cfg.nixos.distroId}
        ID_LIKE=""
        NAME=${cfg.nixos.distroName}
        PRETTY_NAME="NixOS ${cfg.nixos.release} (${cfg.nixos.codeName})"
        ${lib.optionalString (cfg.nixos.variant_id != null) "VARIANT_ID=${cfg.nixos.variant_id}"}
        VERSION="${cfg.nixos.release} (${cfg.nixos.codeName})"
        VERSION_CODENAME=${lib.toLower cfg.nixos.codeName}
        VERSION_ID="${cfg.nixos.release}"
      '';
    };
    system.activationScripts.stdio = "";
    system.activationScripts.var.text = ''
      mkdir -p /var/tmp /var/empty /run/nixos
      chmod 1777 /var/tmp
    '';
  };
}

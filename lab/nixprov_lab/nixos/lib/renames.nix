# Modules for options that were renamed or removed.
lib: let
  inherit (lib) mkMerge mkOption showOption;

  rename = {
    from,
    to,
    warn,
    use,
    visible ? false,
  }: {
    config,
    options,
    ...
  }: let
    old = lib.getAttrFromPath from options;
    target = lib.attrByPath to (throw "Renaming error: option `${showOption to}' does not exist.") options;
  in {
    options = lib.setAttrByPath from (
      mkOption {
        inherit visible;
        description = "Alias of `${showOption to}'.";
        apply = _: use (lib.getAttrFromPath to config);
        type = target.type or lib.types.unspecified;
      }
    );
    config = mkMerge [
      (lib.optionalAttrs (options ? warnings) {
        warnings =
          lib.optional (warn && old.isDefined)
          "The option `${showOption from}' defined in ${lib.showFiles old.files} has been renamed to `${showOption to}'.";
      })
      (lib.setAttrByPath to (mkMerge (map (def: lib.mkOverride old.highestPrio def) old.definitions)))
    ];
  };
in {
  mkRenamedOptionModule = from: to:
    rename {
      inherit from to;
      warn = true;
      use = lib.id;
    };
  mkAliasOptionModule = from: to:
    rename {
      inherit from to;
      warn = false;
      use = lib.id;
    };
  mkRenamedOptionModuleWith = {
    from,
    to,
    sinceRelease,
  }:
    rename {
      inherit from to;
      warn = lib.isInOldestRelease sinceRelease;
      use = lib.id;
    };
  mkRemovedOptionModule = path: instructions: {options, ...}: {
    options = lib.setAttrByPath path (
      mkOption {
        visible = false;
        type = lib.types.unspecified;
        apply = _:
          throw "The option `${showOption path}' can no longer be used since it's been removed. ${instructions}";
      }
    );
    config.assertions = let
      option = lib.getAttrFromPath path options;
    in [
      {
        assertion = !option.isDefined;
        message = "The option definition `${showOption path}' in ${lib.showFiles option.files} no longer has any effect; please remove it.\n${instructions}";
      }
    ];
  };
  mkChangedOptionModule = from: to: change: {
    config,
    options,
    ...
  }: {
    options = lib.setAttrByPath from (mkOption {
      visible = false;
      type = lib.types.unspecified;
    });
    config = mkMerge [
      {
        warnings =
          lib.optional (lib.getAttrFromPath from options).isDefined
          "The option `${showOption from}' defined in ${lib.showFiles (lib.getAttrFromPath from options).files} has been changed to `${showOption to}' that has a different type. Please read `${showOption to}' documentation and update your configuration accordingly.";
      }
      (lib.setAttrByPath to (
        lib.mkIf (lib.getAttrFromPath from options).isDefined (change config)
      ))
    ];
  };
}

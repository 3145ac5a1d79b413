# The module system: gives every definition of the loaded modules to its option, and every option its value.
lib: let
  inherit
    (builtins)
    addErrorContext
    attrNames
    concatLists
    concatMap
    filter
    head
    isAttrs
    length
    mapAttrs
    zipAttrsWith
    ;
  inherit
    (lib)
    isOption
    mkOption
    showDefs
    showOption
    ;
  inherit (import ./load-modules.nix lib) collect;

  # Conditions and merges over whole attribute sets go down to the attributes, so that names need no condition.
  pushDown = value: let
    kind = value._type or null;
    inner = f: map (mapAttrs (_: f)) (pushDown value.content);
  in
    if kind == "merge"
    then concatMap pushDown value.contents
    else if kind == "if"
    then inner (lib.mkIf value.condition)
    else if kind == "override"
    then inner (lib.mkOverride value.priority)
    else [value];

  definitionsByName = loc: definitions:
    zipAttrsWith (_: values: values) (
      concatMap (
        def:
          map (
            attrs:
              if isAttrs attrs
              then
                mapAttrs (_: value: {
                  inherit (def) file;
                  inherit value;
                })
                attrs
              else throw "You're trying to define a value of type `${builtins.typeOf attrs}'\nrather than an attribute set for the option\n`${showOption loc}'!\n\nThis usually happens if `${showOption loc}' has option\ndefinitions inside that are not matched. Please check how to properly define\nthis option by e.g. referring to `man 5 configuration.nix'!"
          ) (pushDown def.value)
      )
      definitions
    );

  # One level of the tree: { options, config, unmatched }.
  mergeTree = loc: declarations: definitions: let
    declared = zipAttrsWith (_: values: values) (
      map (
        decl:
          mapAttrs (
            name: option:
              if isAttrs option
              then {
                inherit (decl) file;
                inherit option;
              }
              else throw "Attribute `${showOption (loc ++ [name])}' in ${decl.file} is not an option declaration: it is a ${builtins.typeOf option}."
          )
          decl.options
      )
      declarations
    );
    defined = definitionsByName loc definitions;
    results =
      mapAttrs (
        name: decls: let
          here = loc ++ [name];
          defs = defined.${name} or [];
          leaves = filter (decl: isOption decl.option) decls;
        in
          if leaves == []
          then
            mergeTree here (map (decl: {
                inherit (decl) file;
                options = decl.option;
              })
              decls)
            defs
          else if length leaves == length decls
          then leaf here leaves defs
          else
            throw "The option `${showOption here}' in module `${(head leaves).file}' would be a parent of the following options, but its type `${
              (head leaves).option.type.description or "<no description>"
            }' does not support nested options.\n${
              lib.concatMapStringsSep "\n" (
                decl: "- option(s) with prefix `${showOption here}' in module `${decl.file}'"
              ) (
                filter (decl: !isOption decl.option) decls
              )
            }"
      )
      declared;
    leaf = here: leaves: defs: rec {
      options = evalOption here leaves defs;
      config = options.value;
      unmatched = [];
    };
  in {
    options = mapAttrs (_: result: result.options) results;
    config = mapAttrs (_: result: result.config) results;
    unmatched =
      concatLists (lib.mapAttrsToList (_: result: result.unmatched) results)
      ++ concatLists (
        lib.mapAttrsToList (
          name: defs: map (def: def // {path = loc ++ [name];}) defs
        ) (removeAttrs defined (attrNames declared))
      );
  };

  # Several declarations of one option are allowed when their types join and no attribute is set twice.
  joinDeclarations = loc: decls:
    builtins.foldl' (
      joined: decl: let
        old = joined.option;
        new = decl.option;
        joinedType = old.type.joined new.type;
        twice = filter (name: old ? ${name} && new ? ${name}) ["default" "example" "description" "apply"];
        mismatch =
          if old ? type && new ? type && joinedType == null
          then throw "The option `${showOption loc}' in `${decl.file}' is already declared in ${lib.showFiles joined.declarations}."
          else twice != [];
      in
        if mismatch
        then throw "The option `${showOption loc}' in `${decl.file}' is already declared in ${lib.showFiles joined.declarations}."
        else {
          declarations = joined.declarations ++ [decl.file];
          option = old // new // lib.optionalAttrs (old ? type && new ? type) {type = joinedType;};
        }
    ) {
      declarations = [(head decls).file];
      inherit ((head decls)) option;
    } (builtins.tail decls);

  evalOption = loc: decls: defs: let
    joined = joinDeclarations loc decls;
    option = joined.option;
    type = option.type or lib.types.unspecified;
    withDefault =
      defs
      ++ lib.optional (option ? default) {
        file = head joined.declarations;
        value = lib.mkOptionDefault option.default;
      };
    merged = lib.mergeDefinitions loc type withDefault;
    written = (lib.settle defs).definitions;
    raw =
      if
        (option.readOnly or false)
        && length written
        > (
          if option ? default
          then 0
          else 1
        )
      then throw "The option `${showOption loc}' is read-only, but it's set multiple times. Definition values:${showDefs written}"
      else merged.value;
    value =
      if option ? apply
      then option.apply raw
      else raw;
  in
    option
    // {
      inherit loc type;
      inherit (joined) declarations;
      value = addErrorContext "while evaluating the option `${showOption loc}':" value;
      inherit (merged) isDefined;
      highestPrio = merged.priority;
      definitions = map (def: def.value) merged.definitions;
      definitionsWithLocations = merged.definitions;
      files = map (def: def.file) merged.definitions;
      options = type.getSubOptions loc;
      __toString = _: showOption loc;
    };

  internalModule = {
    _file = "lib/modules.nix";
    key = "lib/modules.nix";
    options._module = {
      args = mkOption {
        type = lib.types.lazyAttrsOf lib.types.raw;
        default = {};
        description = "Additional arguments passed to each module.";
      };
      check = mkOption {
        type = lib.types.bool;
        default = true;
        description = "Whether to check whether all option definitions have matching declarations.";
      };
      freeformType = mkOption {
        type = lib.types.nullOr lib.types.raw;
        default = null;
        description = "The type of definitions without an option.";
      };
      specialArgs = mkOption {
        type = lib.types.raw;
        readOnly = true;
        description = "Externally provided module arguments.";
      };
    };
  };

  # Removes an option, or everything below it, from a tree.
  without = path: tree: let
    name = head path;
    rest = builtins.tail path;
  in
    if !(isAttrs tree && tree ? ${name})
    then tree
    else if rest == []
    then removeAttrs tree [name]
    else tree // {${name} = without rest tree.${name};};

  # Whether a module defines an option, under any condition.
  says = path: value:
    path
    == []
    || builtins.any (
      attrs: isAttrs attrs && attrs ? ${head path} && says (builtins.tail path) attrs.${head path}
    ) (pushDown value);

  # `absent` are options, as lists of names, for the modules below modulesPath alone. Others do not see them and may not
  # define them, as in a release without them.
  evalModules = {
    modules,
    prefix ? [],
    specialArgs ? {},
    class ? null,
    args ? {},
    check ? true,
    absent ? [],
  } @ call: let
    callArgs =
      {
        inherit lib;
        inherit (tree) options;
        # Modules see the tree before the check for unknown definitions, since the check itself needs their definitions.
        config = declared;
        _class = class;
        _prefix = prefix;
      }
      // specialArgs;
    boundary = {
      _file = "lib/modules.nix";
      key = "lib/modules.nix:arguments";
      config._module = {
        inherit args specialArgs;
        check = lib.mkIf (!check) (lib.mkDefault false);
      };
    };
    isOwn = key: absent == [] || lib.hasPrefix "${specialArgs.modulesPath}/" key;
    hide = attrs: builtins.foldl' (rest: path: without path rest) attrs absent;
    outsiders =
      callArgs
      // {
        options = hide tree.options;
        config = hide declared;
      };
    argsOf = key:
      if isOwn key
      then callArgs
      else outsiders;
    collected =
      lib.reverseList (collect argsOf (specialArgs.modulesPath or "") (modules ++ [internalModule boundary]));
    unknown =
      concatMap (
        module:
          map (path: {
            inherit (module) file;
            inherit path;
            value = lib.attrByPath path null module.config;
          }) (filter (path: !isOwn module.key && says path module.config) absent)
      )
      collected
      ++ tree.unmatched;
    tree = mergeTree prefix (map (module: {inherit (module) file options;}) collected) (
      map (module: {
        inherit (module) file;
        value = module.config;
      })
      collected
    );
    module = tree.config._module;
    free =
      if module.freeformType == null
      then {}
      else
        module.freeformType.merge prefix (
          map (def: {
            inherit (def) file;
            value = lib.setAttrByPath (lib.drop (length prefix) def.path) def.value;
          })
          tree.unmatched
        );
    declared =
      if module.freeformType == null || tree.unmatched == []
      then tree.config
      else lib.recursiveUpdate free tree.config;
    first = head unknown;
    checked =
      if module.check && module.freeformType == null && unknown != []
      then throw "The option `${showOption first.path}' does not exist. Definition values:${showDefs [first]}${hint}"
      else null;
    hint =
      if attrNames tree.options == ["_module"]
      then "\n\nHowever there are no options defined in `${showOption prefix}'. Are you sure you've\ndeclared your options properly? This can happen if you e.g. declared your options in `types.submodule'\nunder `config' rather than `options'."
      else "";
    result = {
      _type = "configuration";
      inherit class;
      inherit (tree) options;
      config = builtins.seq checked (removeAttrs declared ["_module"]);
      inherit (tree.config) _module;
      extendModules = {
        modules ? [],
        specialArgs ? {},
        prefix ? call.prefix or [],
      }:
        evalModules (
          call
          // {
            modules = call.modules ++ modules;
            specialArgs = call.specialArgs or {} // specialArgs;
            inherit prefix;
          }
        );
      type = lib.types.submoduleWith {inherit modules specialArgs class;};
    };
  in
    result;
in {
  inherit evalModules pushDown;
  pushDownProperties = pushDown;
  setDefaultModuleLocation = file: module: {
    _file = file;
    imports = [module];
  };
  mkAliasDefinitions = option:
    lib.mkIf option.isDefined (lib.mkMerge (map (lib.mkOverride option.highestPrio) option.definitions));
}

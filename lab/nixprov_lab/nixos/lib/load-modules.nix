# Brings modules and their imports into one form; they may be files, functions or sets.
lib: let
  inherit
    (builtins)
    addErrorContext
    attrNames
    concatMap
    elem
    filter
    genericClosure
    head
    isAttrs
    isString
    mapAttrs
    toString
    ;
  inherit (lib) mkMerge showDefs;

  unknown = "<unknown-file>";
  plumbing = ["_class" "_file" "key" "disabledModules" "imports" "require" "freeformType"];
  explicitNames = ["_class" "_file" "key" "disabledModules" "imports" "options" "config" "meta" "freeformType"];

  # A module's body in one form: { file, key, disabledModules, imports, options, config }.
  normalise = file: key: body: let
    where = toString (body._file or file);
    strange = removeAttrs body explicitNames;
    freeform = config:
      if body ? freeformType
      then mkMerge [config {_module.freeformType = body.freeformType;}]
      else config;
    meta = config:
      if body ? meta
      then mkMerge [config {inherit (body) meta;}]
      else config;
    common = {
      file = where;
      key = toString (body.key or key);
      disabledModules = body.disabledModules or [];
    };
  in
    if !isAttrs body
    then throw "module ${where} (${key}) does not look like a module."
    else if body ? config || body ? options
    then
      (
        if strange != {}
        then throw "Module `${key}' has an unsupported attribute `${head (attrNames strange)}'. This is caused by introducing a top-level `config' or `options' attribute. Add configuration attributes immediately on the top level instead, or move all of them (namely: ${toString (attrNames strange)}) into the explicit `config' attribute."
        else
          common
          // {
            imports = body.imports or [];
            options = body.options or {};
            config = freeform (meta (body.config or {}));
          }
      )
    else
      common
      // {
        imports = body.require or [] ++ body.imports or [];
        options = {};
        config = freeform (removeAttrs body plumbing);
      };

  # Calls a module that is a function. Arguments that are not in specialArgs come, lazily, from _module.args.
  call = key: argsOf: f:
    if !lib.isFunction f
    then f
    else let
      args = argsOf key;
      named = f.__functionArgs or (builtins.functionArgs f);
      extra =
        mapAttrs (
          name: _:
            addErrorContext "while evaluating the module argument `${name}' in \"${key}\":" (
              args.${name} or args.config._module.args.${name}
            )
        )
        named;
    in
      f (args // extra);

  load = argsOf: fallbackFile: fallbackKey: module:
    if lib.isFunction module
    then normalise fallbackFile fallbackKey (call fallbackKey argsOf module)
    else if isAttrs module && module._type or "module" == "module"
    then normalise fallbackFile fallbackKey module
    else if isAttrs module && (module._type == "if" || module._type == "override" || module._type == "merge")
    then normalise fallbackFile fallbackKey {config = module;}
    else if isAttrs module
    then throw "Could not load a value as a module, because it is of type ${builtins.toJSON module._type}, in file ${toString fallbackFile}."
    else if builtins.isList module
    then
      throw "Module imports can't be nested lists. Perhaps you meant to remove one level of lists? Definitions: ${showDefs [
        {
          file = fallbackFile;
          value = module;
        }
      ]}"
    else if builtins.isPath module || isString module
    then let
      path = toString module;
    in
      normalise path path (call path argsOf (import module))
    else throw "module ${toString fallbackFile} (${fallbackKey}) does not look like a module.";

  # All modules reached from the roots, importers first, each key once, without the disabled ones. `argsOf` has a module's
  # arguments by its key.
  collect = argsOf: modulesPath: roots: let
    enter = file: key: modules: lib.imap1 (n: load argsOf file "${key}:anon-${toString n}") modules;
    closure = disabled: let
      wanted = filter (module: !elem module.key disabled);
    in
      genericClosure {
        startSet = wanted (enter unknown "" roots);
        operator = module: wanted (enter module.file module.key module.imports);
      };
    all = closure [];
    disabledKey = entry:
      if isString entry && builtins.substring 0 1 entry != "/"
      then "${toString modulesPath}/${entry}"
      else if isAttrs entry && entry ? key
      then toString entry.key
      else toString entry;
    disabled = concatMap (module: map disabledKey module.disabledModules) all;
  in
    if disabled == []
    then all
    else closure disabled;
in {
  inherit collect;
}

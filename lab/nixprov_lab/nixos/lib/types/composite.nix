# Types made of other types.
lib: let
  inherit (builtins) all concatLists filter head isAttrs length mapAttrs tail zipAttrsWith;
  inherit (lib) mergeDefinitions mergeEqualOption mergeOneOption showOption types;
  inherit (import ./make.nix lib) mkOptionType phrase;

  container = {
    name,
    description,
    make,
    of,
    check,
    merge,
    emptyValue,
    subLoc,
  }:
    mkOptionType {
      inherit name check merge emptyValue description;
      descriptionClass = "composite";
      getSubOptions = prefix: of.getSubOptions (prefix ++ subLoc);
      getSubModules = of.getSubModules;
      substSubModules = modules: make (of.substSubModules modules);
      nestedTypes.elemType = of;
      inner = of;
      joined = other: let
        both = of.joined other.nestedTypes.elemType;
      in
        if other.name == name && both != null
        then make both
        else null;
    };

  byName = definitions:
    zipAttrsWith (_: values: values) (
      concatLists (map (def:
        map (attrs:
          mapAttrs (_: value: {
            inherit (def) file;
            inherit value;
          })
          attrs) (lib.pushDown def.value))
      definitions)
    );

  attrsOfWith = {
    lazy,
    of,
  }:
    container {
      name =
        if lazy
        then "lazyAttrsOf"
        else "attrsOf";
      description =
        (
          if lazy
          then "lazy attribute set of "
          else "attribute set of "
        )
        + phrase of;
      make = of: attrsOfWith {inherit lazy of;};
      inherit of;
      check = isAttrs;
      subLoc = ["<name>"];
      emptyValue.value = {};
      merge = loc: definitions: let
        merged = mapAttrs (name: defs: mergeDefinitions (loc ++ [name]) of defs) (byName definitions);
      in
        if lazy
        then mapAttrs (_: result: result.optionalValue.value or of.emptyValue.value or result.value) merged
        else mapAttrs (_: result: result.value) (lib.filterAttrs (_: result: result.isDefined) merged);
    };

  submoduleWith = {
    modules,
    specialArgs ? {},
    shorthandOnlyDefinesConfig ? false,
    description ? null,
    class ? null,
  } @ given: let
    asModule = {
      file,
      value,
    }:
      if isAttrs value && shorthandOnlyDefinesConfig
      then {
        _file = file;
        config = value;
      }
      else {
        _file = file;
        imports = [value];
      };
    evaluate = loc: extra:
      lib.evalModules {
        modules = [{_module.args.name = lib.last loc;}] ++ modules ++ extra;
        inherit specialArgs class;
        prefix = loc;
      };
  in
    mkOptionType {
      name = "submodule";
      description =
        if description != null
        then description
        else "submodule";
      descriptionClass = "noun";
      check = value: isAttrs value || lib.isFunction value || lib.types.path.check value;
      merge = loc: definitions: removeAttrs (evaluate loc (map asModule definitions)).config ["_module"];
      emptyValue.value = {};
      getSubOptions = prefix:
        removeAttrs
        (evaluate (
          if prefix == []
          then ["<name>"]
          else prefix
        ) [])
        .options ["_module"];
      getSubModules = modules;
      substSubModules = modules: submoduleWith (given // {inherit modules;});
      joined = other:
        if other.name == "submodule"
        then submoduleWith (given // {modules = modules ++ other.getSubModules;})
        else null;
    };

  submodule = module:
    submoduleWith {
      modules = lib.toList module;
      shorthandOnlyDefinesConfig = true;
    };

  anything = mkOptionType {
    name = "anything";
    description = "anything";
    descriptionClass = "noun";
    merge = loc: definitions: let
      kinds = lib.unique (map (def:
        if lib.isStringLike def.value && isAttrs def.value
        then "package"
        else builtins.typeOf def.value)
      definitions);
    in
      if kinds == ["set"]
      then
        mapAttrs (_: result: result.value) (
          lib.filterAttrs (_: result: result.isDefined) (mapAttrs (name:
            mergeDefinitions (loc
              ++ [name])
            anything) (byName definitions))
        )
      else if kinds == ["lambda"]
      then
        x:
          anything.merge (loc ++ ["<function body>"]) (map (def: {
              inherit (def) file;
              value = def.value x;
            })
            definitions)
      else mergeEqualOption loc definitions;
  };
in {
  inherit anything submodule submoduleWith;
  listOf = of:
    container {
      name = "listOf";
      description = "list of ${phrase of}";
      make = types.listOf;
      inherit of;
      check = builtins.isList;
      subLoc = ["*"];
      emptyValue.value = [];
      merge = loc: definitions:
        concatLists (
          lib.imap1 (
            n: def:
              concatLists (
                lib.imap1 (
                  m: value: let
                    result = mergeDefinitions (loc ++ ["[definition ${toString n}-entry ${toString m}]"]) of [
                      {
                        inherit (def) file;
                        inherit value;
                      }
                    ];
                  in
                    lib.optional result.isDefined result.value
                )
                def.value
              )
          )
          definitions
        );
    };
  nonEmptyListOf = of:
    types.addCheck (types.listOf of) (value: value != [])
    // {
      description = "non-empty list of ${phrase of}";
      emptyValue = {};
    };
  attrsOf = of:
    attrsOfWith {
      lazy = false;
      inherit of;
    };
  lazyAttrsOf = of:
    attrsOfWith {
      lazy = true;
      inherit of;
    };
  attrsWith = {
    elemType,
    lazy ? false,
    placeholder ? "name",
  }:
    attrsOfWith {
      inherit lazy;
      of = elemType;
    };
  nullOr = of:
    container {
      name = "nullOr";
      description = "null or ${phrase of}";
      make = types.nullOr;
      inherit of;
      check = value: value == null || of.check value;
      subLoc = [];
      emptyValue.value = null;
      merge = loc: definitions: let
        nulls = filter (def: def.value == null) definitions;
      in
        if length nulls == length definitions
        then null
        else if nulls != []
        then throw "The option `${showOption loc}' is defined both null and not null, in ${lib.showFiles (lib.getFiles definitions)}."
        else of.merge loc definitions;
    }
    // {
      descriptionClass = "conjunction";
    };
  either = left: right:
    mkOptionType {
      name = "either";
      description = "${
        if left.descriptionClass == "nonRestrictiveClause"
        then "(${left.description})"
        else left.description
      } or ${right.description}";
      descriptionClass = "conjunction";
      check = value: left.check value || right.check value;
      merge = loc: definitions:
        if all (def: left.check def.value) definitions
        then left.merge loc definitions
        else if all (def: right.check def.value) definitions
        then right.merge loc definitions
        else mergeOneOption loc definitions;
      nestedTypes = {inherit left right;};
    };
  oneOf = options:
    if options == []
    then throw "types.oneOf needs to get at least one type in its argument"
    else builtins.foldl' types.either (head options) (tail options);
  uniq = types.unique {message = "";};
  unique = {message}: of:
    of
    // {
      merge = lib.mergeUniqueOption {
        inherit message;
        inherit (of) merge;
      };
    };
  functionTo = of:
    mkOptionType {
      name = "functionTo";
      description = "function that evaluates to a(n) ${phrase of}";
      descriptionClass = "composite";
      check = lib.isFunction;
      merge = loc: definitions: argument:
        (mergeDefinitions (loc ++ ["<function body>"]) of (map (def: {
            inherit (def) file;
            value = def.value argument;
          })
          definitions))
        .value;
      nestedTypes.elemType = of;
    };
  coercedTo = from: convert: to:
    mkOptionType {
      name = "coercedTo";
      description = "${to.description} or ${from.description} convertible to it";
      check = value: (from.check value && to.check (convert value)) || to.check value;
      merge = loc: definitions:
        to.merge loc (map (def:
          def
          // {
            value =
              if from.check def.value
              then convert def.value
              else def.value;
          })
        definitions);
      inherit (to) emptyValue getSubOptions;
      nestedTypes = {
        coercedType = from;
        finalType = to;
      };
    };
  addCheck = of: check:
    of
    // {
      check = value: of.check value && check value;
    };
}

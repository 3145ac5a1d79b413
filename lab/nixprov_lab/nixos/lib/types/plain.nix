# Types of plain values.
lib: let
  inherit (builtins) elem head isAttrs isString length;
  inherit (lib) mergeEqualOption mergeOneOption types;
  inherit (import ./make.nix lib) mkOptionType phrase simple separated;

  between = low: high:
    lib.types.addCheck lib.types.int (n: n >= low && n <= high)
    // {
      name = "intBetween";
      description = "integer between ${toString low} and ${toString high} (both inclusive)";
    };
  sized = bits: low: high:
    between low high
    // {
      name = "${
        if low == 0
        then "un"
        else ""
      }signedInt${toString bits}";
      description = "${toString bits} bit ${
        if low == 0
        then "un"
        else ""
      }signed integer; between ${toString low} and ${toString high} (both inclusive)";
    };
  positive =
    lib.types.addCheck lib.types.int (n: n > 0)
    // {
      name = "positiveInt";
      description = "positive integer, meaning >0";
      descriptionClass = "nonRestrictiveClause";
    };
  unsigned =
    lib.types.addCheck lib.types.int (n: n >= 0)
    // {
      name = "unsignedInt";
      description = "unsigned integer, meaning >=0";
      descriptionClass = "nonRestrictiveClause";
    };
in {
  raw = mkOptionType {
    name = "raw";
    description = "raw value";
    descriptionClass = "noun";
    merge = mergeOneOption;
  };
  unspecified = mkOptionType {
    name = "unspecified";
    description = "unspecified value";
    descriptionClass = "noun";
  };
  optionType = mkOptionType {
    name = "optionType";
    description = "optionType";
    check = value: value._type or null == "option-type";
    merge = mergeOneOption;
  };
  deferredModule = mkOptionType {
    name = "deferredModule";
    description = "module";
    descriptionClass = "noun";
    check = value: isAttrs value || lib.isFunction value || types.path.check value;
    merge = _: definitions: {imports = map (def: lib.setDefaultModuleLocation def.file def.value) definitions;};
  };

  bool = simple "bool" "boolean" builtins.isBool;
  boolByOr = mkOptionType {
    name = "boolByOr";
    description = "boolean (merged using or)";
    check = builtins.isBool;
    merge = _: definitions: builtins.any (def: def.value) definitions;
  };
  int = simple "int" "signed integer" builtins.isInt;
  float = simple "float" "floating point number" builtins.isFloat;
  number = types.either types.int types.float;
  ints = {
    inherit between positive unsigned;
    u8 = sized 8 0 255;
    u16 = sized 16 0 65535;
    u32 = sized 32 0 4294967295;
    s8 = sized 8 (-128) 127;
    s16 = sized 16 (-32768) 32767;
    s32 = sized 32 (-2147483648) 2147483647;
  };
  port = types.ints.u16;

  str = simple "str" "string" isString;
  singleLineStr = simple "singleLineStr" "(optionally newline-terminated) single-line string" (
    value: isString value && builtins.match "[^\n]*\n?" value != null
  );
  nonEmptyStr =
    simple "nonEmptyStr" "non-empty string" (value: isString value && builtins.match "[ \t\n]*" value == null);
  passwdEntry = of:
    types.addCheck of (value: builtins.match "[^:\n]*" value != null)
    // {
      name = "passwdEntry ${of.name}";
      description = "${phrase of}, not containing newlines or colons";
    };
  strMatching = pattern:
    simple "strMatching ${lib.escapeNixString pattern}" "string matching the pattern ${pattern}" (
      value: isString value && builtins.match pattern value != null
    );
  string =
    throw "The type `types.string` is deprecated. See https://github.com/NixOS/nixpkgs/pull/66346 for better alternative types.";
  separatedString = separator:
    separated separator "separatedString" (
      if separator == ""
      then "Concatenated string"
      else "strings concatenated with ${builtins.toJSON separator}"
    );
  lines = separated "\n" "separatedString" "strings concatenated with \"\\n\"";
  commas = separated "," "separatedString" "strings concatenated with \",\"";
  envVar = separated ":" "separatedString" "strings concatenated with \":\"";

  attrs = mkOptionType {
    name = "attrs";
    description = "attribute set";
    check = isAttrs;
    merge = _: builtins.foldl' (all: def: all // def.value) {};
    emptyValue.value = {};
  };
  package = mkOptionType {
    name = "package";
    description = "package";
    descriptionClass = "noun";
    check = value: lib.isDerivation value || lib.isStorePath value;
    merge = loc: definitions: let
      value = mergeOneOption loc definitions;
    in
      if builtins.isPath value || (isString value && !builtins.hasContext value)
      then lib.toDerivation value
      else value;
  };
  shellPackage = types.package // {check = value: lib.isDerivation value && value ? shellPath;};
  path =
    simple "path" "absolute path" (value: lib.isStringLike value && builtins.substring 0 1 (toString value) == "/");
  pathInStore = simple "pathInStore" "path in the Nix store" (
    value: lib.isStringLike value && builtins.match "${builtins.storeDir}/[^.].*" (toString value) != null
  );
  pathWith = {
    inStore ? null,
    absolute ? null,
  }:
    if inStore == true
    then types.pathInStore
    else types.path;
  enum = values: let
    show = value:
      if isString value
      then ''"${value}"''
      else builtins.toJSON value;
  in
    mkOptionType {
      name = "enum";
      description =
        if values == []
        then "impossible (empty enum)"
        else if length values == 1
        then "value ${show (head values)} (singular enum)"
        else "one of ${lib.concatMapStringsSep ", " show values}";
      descriptionClass =
        if length values < 2
        then "noun"
        else "conjunction";
      check = value: elem value values;
      merge = mergeEqualOption;
      joined = other:
        if other.name == "enum"
        then types.enum (lib.unique (values ++ other.values))
        else null;
    }
    // {
      inherit values;
    };
  inherit between;
}

# Values as text.
lib: let
  indent = text:
    lib.concatMapStringsSep "\n" (line:
      if line == ""
      then line
      else "  " + line) (lib.splitString "\n" text);
  self = {
    toJSON = _: builtins.toJSON;
    mkValueStringDefault = _: value:
      if builtins.isBool value
      then lib.boolToString value
      else if value == null
      then "null"
      else if
        lib.isDerivation value
        || builtins.isString value
        || builtins.isInt value
        || builtins.isFloat value
        || builtins.isPath value
      then toString value
      else throw "generators.mkValueStringDefault: ${builtins.typeOf value} not supported: ${self.toPretty {} value}";
    mkKeyValueDefault = {mkValueString ? self.mkValueStringDefault {}}: separator: name: value: "${lib.escape [separator] name}${separator}${mkValueString value}";
    toKeyValue = {
      mkKeyValue ? self.mkKeyValueDefault {} "=",
      listsAsDuplicateKeys ? false,
      indent ? "",
    }: attrs: let
      line = name: value: indent + mkKeyValue name value + "\n";
      lines = name: value:
        if listsAsDuplicateKeys
        then lib.concatMapStrings (line name) (lib.toList value)
        else line name value;
    in
      lib.concatStrings (lib.mapAttrsToList lines attrs);
    toINI = {
      mkSectionName ? lib.id,
      mkKeyValue ? self.mkKeyValueDefault {} "=",
      listsAsDuplicateKeys ? false,
    }: sections:
      lib.concatStringsSep "\n" (
        lib.mapAttrsToList (
          name: values:
            "[${mkSectionName name}]\n"
            + self.toKeyValue {
              inherit mkKeyValue listsAsDuplicateKeys;
            }
            values
        )
        sections
      );
    # Values as in error messages: one item a line, strings quoted, functions and packages only named.
    toPretty = {multiline ? true, ...} @ options: value: let
      open =
        if multiline
        then "\n"
        else " ";
      block = items: (
        if multiline
        then indent (lib.concatStringsSep "\n" items)
        else lib.concatStringsSep " " items
      );
      show = self.toPretty options;
    in
      if builtins.isString value
      then
        (
          if multiline && lib.hasInfix "\n" value
          then "''\n" + indent (lib.replaceStrings ["''" "\${"] ["'''" "''\${"] value) + "''"
          else lib.escapeNixString value
        )
      else if builtins.isFunction value
      then "<function>"
      else if lib.isDerivation value
      then "<derivation ${value.name or "???"}>"
      else if builtins.isList value
      then
        (
          if value == []
          then "[ ]"
          else "[${open}${block (map show value)}${open}]"
        )
      else if builtins.isAttrs value
      then
        (
          if value == {}
          then "{ }"
          else "{${open}${block (lib.mapAttrsToList (name: item: "${lib.escapeNixIdentifier name} = ${show item};") value)}${open}}"
        )
      else if builtins.isPath value
      then toString value
      else builtins.toJSON value;
  };
in
  self

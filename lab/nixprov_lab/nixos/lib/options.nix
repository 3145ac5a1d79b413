# Options: their declaration and display, and the merge of an option's definitions to a value.
lib: let
  inherit
    (builtins)
    concatLists
    filter
    head
    isAttrs
    length
    map
    ;
  defaultPriority = lib.defaultOverridePriority;
  plainName = name:
    builtins.match "[a-zA-Z_][a-zA-Z0-9_'-]*" name
    != null
    || builtins.elem name ["*" "<name>"]
    || lib.hasPrefix "[definition " name
    || lib.hasPrefix "<" name;

  # mkIf and mkMerge dissolved: only plain values, priorities and orders are left.
  discharge = value: let
    kind = value._type or null;
  in
    if !isAttrs value || !(value ? _type)
    then [value]
    else if kind == "merge"
    then builtins.concatMap discharge value.contents
    else if kind == "if"
    then
      (
        if builtins.isBool value.condition
        then
          (
            if value.condition
            then discharge value.content
            else []
          )
        else throw "‘mkIf’ called with a non-Boolean condition"
      )
    else [value];

  withPriority = {
    file,
    value,
  }:
    if isAttrs value && value._type or null == "override"
    then {
      inherit file;
      value = value.content;
      inherit (value) priority;
    }
    else {
      inherit file value;
      priority = defaultPriority;
    };

  ordered = definitions: let
    isOrder = def: isAttrs def.value && def.value._type or null == "order";
    strip = def:
      if isOrder def
      then {
        inherit (def) file;
        value = def.value.content;
        inherit (def.value) priority;
      }
      else {
        inherit (def) file value;
        priority = lib.defaultOrderPriority;
      };
    ranked = builtins.sort (a: b: a.priority < b.priority) (map strip definitions);
  in
    if builtins.any isOrder definitions
    then map (def: {inherit (def) file value;}) ranked
    else definitions;

  self = {
    isOption = value: value._type or null == "option";
    mkOption = {
      default ? null,
      defaultText ? null,
      example ? null,
      description ? null,
      relatedPackages ? null,
      type ? null,
      apply ? null,
      internal ? null,
      visible ? null,
      readOnly ? null,
    } @ attrs:
      attrs // {_type = "option";};
    mkEnableOption = name:
      self.mkOption {
        default = false;
        example = true;
        description = "Whether to enable ${name}.";
        type = lib.types.bool;
      };
    mkPackageOption = pkgs: name: {
      nullable ? false,
      default ? name,
      example ? null,
      extraDescription ? "",
      pkgsText ? "pkgs",
    }: let
      path = lib.toList default;
    in
      self.mkOption {
        type =
          if nullable
          then lib.types.nullOr lib.types.package
          else lib.types.package;
        description = "The ${lib.concatStringsSep "." (lib.toList name)} package to use.";
        ${
          if default == null
          then null
          else "default"
        } =
          lib.getAttrFromPath path pkgs;
      };
    literalExpression = text: {
      _type = "literalExpression";
      inherit text;
    };
    literalMD = text: {
      _type = "literalMD";
      inherit text;
    };

    showOption = path:
      lib.concatStringsSep "." (map (name:
        if plainName name
        then name
        else lib.escapeNixString name)
      path);
    showFiles = files: lib.concatMapStringsSep " and " (file: "`${file}'") files;
    showOptionWithDefLocs = option: "${self.showOption option.loc}, with values defined in:\n${lib.concatMapStringsSep "\n" (f: "- ${f}") option.files}";

    # The definitions, one a line, for error messages.
    showDefs = definitions:
      lib.concatMapStrings (
        def: let
          shown = builtins.tryEval (
            let
              text = lib.generators.toPretty {} def.value;
            in
              builtins.seq (builtins.stringLength text) text
          );
          lines = lib.splitString "\n" shown.value;
          body = lib.concatStringsSep "\n    " (lib.take 5 lines ++ lib.optional (length lines > 5) "...");
        in
          "\n- In `${def.file}'"
          + (
            if !shown.success
            then ""
            else if length lines > 1
            then ":\n    ${body}"
            else ": ${body}"
          )
      )
      definitions;

    # {file, value} definitions of one option -> the values of the highest priority, in order.
    settle = definitions: let
      plain = concatLists (map (def:
        map (value: {
          inherit (def) file;
          inherit value;
        }) (discharge def.value))
      definitions);
      ranked = map withPriority plain;
      highest =
        builtins.foldl' (best: def:
          if def.priority < best
          then def.priority
          else best)
        9999
        ranked;
      winners = map (def: {inherit (def) file value;}) (filter (def: def.priority == highest) ranked);
    in {
      priority = highest;
      definitions = ordered winners;
    };

    mergeDefinitions = loc: type: definitions: let
      settled = self.settle definitions;
      values = settled.definitions;
      wrong = filter (def: !type.check def.value) values;
    in rec {
      definitions = values;
      inherit (settled) priority;
      isDefined = values != [];
      value =
        if isDefined
        then
          (
            if wrong == []
            then type.merge loc values
            else throw "A definition for option `${self.showOption loc}' is not of type `${type.description}'. Definition values:${self.showDefs wrong}"
          )
        else if type.emptyValue ? value
        then type.emptyValue.value
        else throw "The option `${self.showOption loc}' was accessed but has no value defined. Try setting the option.";
      optionalValue =
        if isDefined
        then {inherit value;}
        else {};
    };

    mergeOneOption = self.mergeUniqueOption {message = "";};
    mergeUniqueOption = {
      message,
      merge ? null,
    }: loc: definitions:
      if length definitions == 1
      then
        (
          if merge == null
          then (head definitions).value
          else merge loc definitions
        )
      else throw "The option `${self.showOption loc}' is defined multiple times while it's expected to be unique.\n${message}\nDefinition values:${self.showDefs definitions}\nUse `lib.mkForce value` or `lib.mkDefault value` to change the priority on any of these definitions.";
    mergeEqualOption = loc: definitions: let
      first = head definitions;
      same =
        builtins.foldl' (
          seen: def:
            if def.value != first.value
            then self.conflict loc [first def]
            else seen
        )
        true (builtins.tail definitions);
    in
      if length definitions == 1 || same
      then first.value
      else null;
    conflict = loc: definitions:
      throw "The option `${self.showOption loc}' has conflicting definition values:${self.showDefs definitions}\nUse `lib.mkForce value` or `lib.mkDefault value` to change the priority on any of these definitions.";
    mergeDefaultOption = loc: definitions: let
      values = self.getValues definitions;
    in
      if length values == 1
      then head values
      else if builtins.all lib.isFunction values
      then x: self.mergeDefaultOption loc (map (def: def // {value = def.value x;}) definitions)
      else if builtins.all builtins.isList values
      then concatLists values
      else if builtins.all isAttrs values
      then builtins.foldl' (a: b: a // b) {} values
      else if builtins.all builtins.isBool values
      then builtins.any (v: v) values
      else if builtins.all builtins.isString values
      then lib.concatStrings values
      else throw "Cannot merge definitions of `${self.showOption loc}'. Definition values:${self.showDefs definitions}";

    getValues = map (def: def.value);
    getFiles = map (def: def.file);

    # Every option below `options`, flat.
    collectOptions = options:
      if self.isOption options
      then [options]
      else
        concatLists (lib.mapAttrsToList (name: value:
          if name == "_module" || !isAttrs value
          then []
          else self.collectOptions value)
        options);
  };
in
  self

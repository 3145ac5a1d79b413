# Strings.
lib: let
  inherit
    (builtins)
    concatStringsSep
    filter
    isString
    replaceStrings
    stringLength
    substring
    ;
  lower = "abcdefghijklmnopqrstuvwxyz";
  upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  self = {
    inherit
      (builtins)
      compareVersions
      concatStringsSep
      fromJSON
      isString
      match
      parseDrvName
      replaceStrings
      split
      storeDir
      stringLength
      substring
      toJSON
      unsafeDiscardStringContext
      hashString
      ;

    lowerChars = self.stringToCharacters lower;
    upperChars = self.stringToCharacters upper;

    concatStrings = concatStringsSep "";
    concatMapStrings = f: list: self.concatStrings (map f list);
    concatMapStringsSep = separator: f: list: concatStringsSep separator (map f list);
    concatImapStrings = f: list: self.concatStrings (lib.imap1 f list);
    concatImapStringsSep = separator: f: list: concatStringsSep separator (lib.imap1 f list);
    concatMapAttrsStringSep = separator: f: attrs: concatStringsSep separator (lib.mapAttrsToList f attrs);
    concatLines = self.concatMapStrings (line: line + "\n");
    intersperse = separator: list:
      if list == []
      then []
      else
        [(builtins.head list)]
        ++ builtins.concatMap (item: [
          separator
          item
        ]) (builtins.tail list);
    join = concatStringsSep;
    replicate = n: text: self.concatStrings (builtins.genList (_: text) n);

    optionalString = condition: text:
      if condition
      then text
      else "";
    stringToCharacters = text: builtins.genList (n: substring n 1 text) (stringLength text);
    stringAsChars = f: text: self.concatMapStrings f (self.stringToCharacters text);
    toLower = replaceStrings (self.stringToCharacters upper) (self.stringToCharacters lower);
    toUpper = replaceStrings (self.stringToCharacters lower) (self.stringToCharacters upper);
    toSentenceCase = text: self.toUpper (substring 0 1 text) + self.toLower (substring 1 (-1) text);

    hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
    hasSuffix = suffix: text: let
      rest = stringLength text - stringLength suffix;
    in
      rest >= 0 && substring rest (-1) text == suffix;
    hasInfix = infix: text: builtins.length (builtins.split (self.escapeRegex infix) text) > 1;
    removePrefix = prefix: text:
      if self.hasPrefix prefix text
      then substring (stringLength prefix) (-1) text
      else text;
    removeSuffix = suffix: text:
      if self.hasSuffix suffix text
      then substring 0 (stringLength text - stringLength suffix) text
      else text;
    splitString = separator: text: filter isString (builtins.split (self.escapeRegex separator) (toString text));
    trim = text: builtins.head (builtins.match "[[:space:]]*(.*[^[:space:]])?[[:space:]]*" text ++ [""]);
    fileContents = file: self.removeSuffix "\n" (builtins.readFile file);

    escape = characters: replaceStrings characters (map (c: "\\" + c) characters);
    escapeRegex = self.escape (self.stringToCharacters "\\[{()^$?*+|.");
    escapeShellArg = argument: let
      text = toString argument;
    in
      if builtins.match "[[:alnum:],._+:@%/-]+" text == null
      then "'${replaceStrings ["'"] ["'\\''"] text}'"
      else text;
    escapeShellArgs = self.concatMapStringsSep " " self.escapeShellArg;
    isValidPosixName = name: builtins.match "[a-zA-Z_][a-zA-Z0-9_]*" name != null;
    toShellVar = name: value:
      if !self.isValidPosixName name
      then throw "toShellVar: ${name} is not a valid shell variable name"
      else if builtins.isAttrs value && !self.isStringLike value
      then "declare -A ${name}=(${
        concatStringsSep " " (lib.mapAttrsToList (n: v: "[${self.escapeShellArg n}]=${self.escapeShellArg v}") value)
      })"
      else if builtins.isList value
      then "declare -a ${name}=(${self.escapeShellArgs value})"
      else "${name}=${self.escapeShellArg value}";
    toShellVars = vars: concatStringsSep "\n" (lib.mapAttrsToList self.toShellVar vars);
    escapeNixString = text: self.escape ["$"] (builtins.toJSON text);
    escapeNixIdentifier = name:
      if builtins.match "[a-zA-Z_][a-zA-Z0-9_'-]*" name != null
      then name
      else self.escapeNixString name;
    escapeSystemdExecArg = argument: replaceStrings ["%" "$"] ["%%" "$$"] (builtins.toJSON (toString argument));
    escapeSystemdExecArgs = self.concatMapStringsSep " " self.escapeSystemdExecArg;

    makeSearchPath = folder: packages: concatStringsSep ":" (map (p: "${toString p}/${folder}") (filter (p: p != null) packages));
    makeSearchPathOutput = output: folder: packages:
      self.makeSearchPath folder (map (lib.getOutput output) packages);
    makeBinPath = self.makeSearchPathOutput "bin" "bin";
    makeLibraryPath = self.makeSearchPathOutput "lib" "lib";

    versionOlder = a: b: builtins.compareVersions b a == 1;
    versionAtLeast = a: b: !self.versionOlder a b;
    getName = value:
      (builtins.parseDrvName (
        if isString value
        then value
        else value.pname or value.name
      ))
      .name;
    getVersion = value:
      if isString value
      then (builtins.parseDrvName value).version
      else value.version or (builtins.parseDrvName value.name).version;
    isStringLike = value: isString value || builtins.isPath value || value ? outPath || value ? __toString;
    isConvertibleWithToString = value:
      self.isStringLike value
      || builtins.elem (builtins.typeOf value) ["null" "int" "float" "bool"]
      || (builtins.isList value && builtins.all self.isConvertibleWithToString value);
    isStorePath = value:
      self.isStringLike value
      && (
        let
          text = toString value;
        in
          substring 0 1 text == "/" && dirOf text == builtins.storeDir
      );
    sanitizeDerivationName = text: let
      clean = concatStringsSep "-" (
        filter isString (builtins.split "[^[:alnum:]+._?=-]+" (self.unsafeDiscardStringContext (toString text)))
      );
      short = builtins.substring 0 207 (self.removePrefix "." clean);
    in
      if short == ""
      then "unknown"
      else short;
    toInt = text: let
      digits = builtins.match "[[:space:]]*(-?[1-9][0-9]*|0)[[:space:]]*" text;
    in
      if digits == null
      then throw "lib.toInt: could not convert ${builtins.toJSON text} to int"
      else builtins.fromJSON (builtins.head digits);
    fixedWidthString = width: filler: text:
      if stringLength text >= width
      then text
      else filler + self.fixedWidthString (width - stringLength filler) filler text;
    fixedWidthNumber = width: n: self.fixedWidthString width "0" (toString n);
  };
in
  self

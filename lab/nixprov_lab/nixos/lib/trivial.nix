# Small functions about functions, booleans, files and messages.
lib: let
  release = "25.11";
  codeName = "Xantusia";
in {
  inherit release codeName;
  version = "${release}.nixprov-lab";
  oldestSupportedRelease = 2505;
  isInOldestRelease = wanted: wanted <= 2505;
  oldestSupportedReleaseIsAtLeast = wanted: wanted <= 2505;

  inherit
    (builtins)
    pathExists
    readFile
    isBool
    isInt
    isFloat
    isPath
    functionArgs
    bitAnd
    bitOr
    bitXor
    lessThan
    add
    sub
    seq
    deepSeq
    genericClosure
    ;

  id = x: x;
  const = x: _: x;
  pipe = builtins.foldl' (value: f: f value);
  flip = f: a: b:
    f b a;
  and = a: b: a && b;
  xor = a: b: a != b;
  min = a: b:
    if a < b
    then a
    else b;
  max = a: b:
    if a > b
    then a
    else b;
  mod = a: b: a - b * (a / b);
  compare = a: b:
    if a < b
    then -1
    else if a > b
    then 1
    else 0;
  mapNullable = f: value:
    if value == null
    then null
    else f value;
  defaultTo = default: value:
    if value == null
    then default
    else value;
  boolToString = value:
    if value
    then "true"
    else "false";
  boolToYesNo = value:
    if value
    then "yes"
    else "no";
  fix = f: let
    self = f self;
  in
    self;
  isFunction = value: builtins.isFunction value || (value ? __functor && builtins.isFunction (value.__functor value));
  toFunction = value:
    if lib.isFunction value
    then value
    else _: value;
  setFunctionArgs = f: args: {
    __functor = _: f;
    __functionArgs = args;
  };

  importJSON = path: builtins.fromJSON (builtins.readFile path);
  importTOML = path: fromTOML (builtins.readFile path);
  cleanSource = lib.cleanSourceWith {};
  cleanSourceWith = _: src:
    builtins.path {
      path = src;
      name = "source";
      filter = path: kind: baseNameOf path != ".git" && kind != "unknown" && !lib.hasSuffix "~" path;
    };

  warn = builtins.warn or (message: builtins.trace "evaluation warning: ${message}");
  warnIf = condition: message:
    if condition
    then lib.warn message
    else lib.id;
  warnIfNot = condition: lib.warnIf (!condition);
  throwIf = condition: message:
    if condition
    then throw message
    else lib.id;
  throwIfNot = condition: lib.throwIf (!condition);
  assertMsg = condition: message: condition || throw message;
  assertOneOf = name: value: allowed:
    lib.assertMsg (builtins.elem value allowed)
    "${name} must be one of ${lib.generators.toPretty {} allowed}, but is: ${lib.generators.toPretty {} value}";
  showWarnings = warnings: result: builtins.foldl' (rest: message: lib.warn message rest) result warnings;
  traceVal = value: builtins.trace value value;
  traceValSeq = value: builtins.trace (builtins.deepSeq value value) value;
  traceIf = condition: message: value:
    if condition
    then builtins.trace message value
    else value;
  inPureEvalMode = !(builtins ? currentSystem);
}

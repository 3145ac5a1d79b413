# The options of a unit of each kind, and its text.
{
  lib,
  pkgs,
  config,
}: let
  inherit (lib) mkOption types;
  inherit (import ./declare.nix lib) option required optional;
  scalar = types.oneOf [types.bool types.int types.float types.str types.path types.package];
  # Lists of several modules are joined; a plain value may be set once.
  value = lib.mkOptionType {
    name = "systemd option";
    check = value: let
      one = item: item == null || scalar.check item;
    in
      if builtins.isList value
      then builtins.all one value
      else one value;
    merge = loc: definitions: let
      values = lib.getValues definitions;
    in
      if builtins.any builtins.isList values
      then lib.concatMap lib.toList values
      else lib.mergeEqualOption loc definitions;
  };
  section = option (types.attrsOf value) {} "Settings of this section.";
  str = description:
    mkOption {
      type = types.str;
      default = "";
      inherit description;
    };
  lines = description:
    mkOption {
      type = types.lines;
      default = "";
      inherit description;
    };
  bool = default: description:
    mkOption {
      type = types.bool;
      inherit default description;
    };
  list = type: description:
    mkOption {
      type = types.listOf type;
      default = [];
      inherit description;
    };
  names =
    list (types.strMatching "[a-zA-Z0-9@%:_.\\-]+[.](service|socket|device|mount|automount|swap|target|path|timer|scope|slice)") "Units.";
  words = list types.str "Words.";
  triggers = list types.unspecified "Values whose change counts as a change of the unit.";

  common = {
    enable = bool true "If false, the unit is a link to /dev/null: it cannot be started.";
    description = str "Description=";
    documentation = words;
    requires = names;
    wants = names;
    upholds = names;
    after = names;
    before = names;
    bindsTo = names;
    partOf = names;
    conflicts = names;
    requisite = names;
    onFailure = names;
    onSuccess = names;
    wantedBy = names;
    requiredBy = names;
    upheldBy = names;
    aliases = names;
    unitConfig = section;
    startLimitBurst = optional types.int "StartLimitBurst=";
    startLimitIntervalSec = optional types.int "StartLimitIntervalSec=";
    overrideStrategy =
      option (types.enum ["asDropinIfExists" "asDropin"]) "asDropinIfExists" "Whether a unit of a package is replaced or added to.";
    name = required types.str "The unit's name, with its kind.";
  };
  triggered = {
    restartTriggers = triggers;
    reloadTriggers = triggers;
  };
  service =
    common
    // triggered
    // {
      environment =
        option (types.attrsOf (types.nullOr (types.oneOf [types.str types.path types.package]))) {} "Environment=";
      path = list (types.oneOf [types.package types.str]) "Packages whose bin and sbin are in PATH.";
      serviceConfig = section;
      script = lines "Shell commands for ExecStart=.";
      scriptArgs = str "Arguments of the script.";
      preStart = lines "Shell commands for ExecStartPre=.";
      postStart = lines "Shell commands for ExecStartPost=.";
      reload = lines "Shell commands for ExecReload=.";
      preStop = lines "Shell commands for ExecStop=.";
      postStop = lines "Shell commands for ExecStopPost=.";
      jobScripts = mkOption {
        type = types.attrsOf (types.listOf types.str);
        default = {};
        internal = true;
        description = "Made from the scripts.";
      };
      restartIfChanged = bool true "Restart it when it has changed.";
      reloadIfChanged = bool false "Reload it, and do not restart, when it has changed.";
      stopIfChanged = bool true "When it has changed, stop it before and start it after the activation.";
      notSocketActivated = bool false "A socket of its name is not stopped with it.";
      startAt = mkOption {
        type = types.either types.str (types.listOf types.str);
        default = [];
        apply = lib.toList;
        description = "Calendar times of a timer of its name.";
      };
      enableStrictShellChecks = bool false "Without effect.";
      enableDefaultPath = bool true "Have coreutils, findutils, gnugrep, gnused and systemd in PATH.";
      confinement = option (types.attrsOf types.anything) {} "Not supported.";
    };
  socket =
    common
    // {
      listenStreams = words;
      listenDatagrams = words;
      socketConfig = section;
    };
  timer = common // {timerConfig = section;};
  path = common // {pathConfig = section;};
  slice = common // {sliceConfig = section;};
  mount =
    common
    // {
      what = required types.str "What=";
      where = required types.str "Where=";
      type = str "Type=";
      options = option types.commas "" "Options=";
      mountConfig = section;
    };

  show = value:
    if value == true
    then "true"
    else if value == false
    then "false"
    else toString value;
  settings = attrs:
    lib.concatStrings (
      lib.mapAttrsToList (
        name: value:
          lib.concatMapStrings (
            item: "${name}=${show item}\n"
          ) (builtins.filter (item: item != null) (lib.toList value))
      )
      attrs
    );
  triggerText = kind: name: triggers:
    pkgs.writeText "X-${kind}-Triggers-${name}" (lib.concatMapStrings (trigger: "${toString trigger}\n") triggers);

  unitSection = name: unit:
    lib.filterAttrs (_: value: value != [] && value != "" && value != null) {
      Requires = unit.requires;
      Wants = unit.wants;
      Upholds = unit.upholds;
      After = unit.after;
      Before = unit.before;
      BindsTo = unit.bindsTo;
      PartOf = unit.partOf;
      Conflicts = unit.conflicts;
      Requisite = unit.requisite;
      OnFailure = unit.onFailure;
      OnSuccess = unit.onSuccess;
      Description = unit.description;
      Documentation = unit.documentation;
      StartLimitBurst = unit.startLimitBurst;
      StartLimitIntervalSec = unit.startLimitIntervalSec;
      X-Restart-Triggers =
        lib.optionalString (unit.restartTriggers or [] != []) "${triggerText "Restart" name unit.restartTriggers}";
      X-Reload-Triggers =
        lib.optionalString (unit.reloadTriggers or [] != []) "${triggerText "Reload" name unit.reloadTriggers}";
    };
  spaced = lib.mapAttrs (_: value:
    if builtins.isList value
    then lib.concatMapStringsSep " " toString value
    else value);
  head = name: unit: "[Unit]\n${settings (unit.unitConfig // removeAttrs (spaced (unitSection name unit)) (builtins.attrNames unit.unitConfig))}\n";

  script = name: text: "${pkgs.writeTextFile {
    name = "unit-script-${lib.replaceStrings ["@" "\\"] ["-" "-"] name}";
    executable = true;
    destination = "/bin/${lib.replaceStrings ["@" "\\"] ["-" "-"] name}";
    text = "#!${pkgs.runtimeShell} -e\n${text}\n";
  }}/bin/${lib.replaceStrings ["@" "\\"] ["-" "-"] name}";
  withScripts = name: unit: let
    one = setting: text: suffix: arguments:
      lib.optionalAttrs (text != "") {${setting} = script "${name}-${suffix}" text + arguments;};
    many = setting: text: suffix:
      lib.optionalAttrs (text != "") {
        ${setting} =
          [(script "${name}-${suffix}" text)] ++ lib.toList (unit.serviceConfig.${setting} or []);
      };
    twice = lib.filter (setting: unit.serviceConfig ? ${setting}) (
      lib.optional (unit.script != "") "ExecStart" ++ lib.optional (unit.reload != "") "ExecReload"
    );
  in
    if twice != []
    then throw "systemd.services.${name}: both a script and serviceConfig.${builtins.head twice} are set"
    else
      unit.serviceConfig
      // one "ExecStart" unit.script "start" (lib.optionalString (unit.scriptArgs != "") " ${unit.scriptArgs}")
      // one "ExecReload" unit.reload "reload" ""
      // many "ExecStartPre" unit.preStart "pre-start"
      // many "ExecStartPost" unit.postStart "post-start"
      // many "ExecStop" unit.preStop "pre-stop"
      // many "ExecStopPost" unit.postStop "post-stop";

  defaultPath = with pkgs; [coreutils findutils gnugrep gnused config.systemd.package];
  environmentLines = unit: let
    packages = unit.path ++ lib.optionals unit.enableDefaultPath defaultPath;
    path =
      lib.concatStringsSep ":" (map (p: "${lib.getBin p}/bin") packages ++ map (p: "${lib.getBin p}/sbin") packages);
    all = config.systemd.globalEnvironment // {PATH = path;} // unit.environment;
    line = name: value: "Environment=${builtins.toJSON "${name}=${builtins.replaceStrings ["%"] ["%%"] "${value}"}"}\n";
    size = builtins.stringLength "${all.PATH}";
  in
    if size >= 131072
    then throw "The value of the environment variable ‘PATH’ is too long."
    else lib.concatStrings (lib.mapAttrsToList line (lib.filterAttrs (_: value: value != null) all));
  switches = unit:
    lib.optionalString unit.reloadIfChanged "X-ReloadIfChanged=true\n"
    + lib.optionalString (!unit.reloadIfChanged && !unit.restartIfChanged) "X-RestartIfChanged=false\n"
    + lib.optionalString (!unit.stopIfChanged) "X-StopIfChanged=false\n"
    + lib.optionalString unit.notSocketActivated "X-NotSocketActivated=true\n";

  kinds = {
    service = {
      options = service;
      text = name: unit:
        if unit.confinement != {}
        then throw "systemd.services.${name}.confinement: not supported by the stand-in NixOS"
        else head name unit + "[Service]\n${environmentLines unit}${switches unit}${settings (withScripts name unit)}";
    };
    socket = {
      options = socket;
      text = name: unit:
        head name unit
        + "[Socket]\n${settings unit.socketConfig}"
        + lib.concatMapStrings (listen: "ListenStream=${listen}\n") unit.listenStreams
        + lib.concatMapStrings (listen: "ListenDatagram=${listen}\n") unit.listenDatagrams;
    };
    timer = {
      options = timer;
      text = name: unit: head name unit + "[Timer]\n${settings unit.timerConfig}";
    };
    path = {
      options = path;
      text = name: unit: head name unit + "[Path]\n${settings unit.pathConfig}";
    };
    slice = {
      options = slice;
      text = name: unit: head name unit + "[Slice]\n${settings unit.sliceConfig}";
    };
    target = {
      options = common;
      text = head;
    };
    mount = {
      options = mount;
      text = name: unit:
        head name unit
        + "[Mount]\nWhat=${unit.what}\nWhere=${unit.where}\n${lib.optionalString (unit.type != "") "Type=${unit.type}\n"}"
        + "${lib.optionalString (unit.options != "") "Options=${unit.options}\n"}${settings unit.mountConfig}";
    };
  };
in {
  inherit kinds settings section;
}

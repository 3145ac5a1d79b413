# Units, as text below /etc/systemd/system. Debian's own units stay in /usr/lib/systemd/system, except that the targets
# NixOS links into /etc/systemd/system are linked here too: a switch starts the active ones among them.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  inherit (import ./declare.nix lib) option optional flag refuse;
  inherit (import ./systemd-unit-options.nix {inherit lib pkgs config;}) kinds settings section;
  cfg = config.systemd;

  collection = kind:
    mkOption {
      default = {};
      description = "Units of the kind ${kind}.";
      type = types.attrsOf (types.submodule ({name, ...}: {
        options = kinds.${kind}.options;
        config.name = lib.mkDefault "${name}.${kind}";
      }));
    };
  mounts = mkOption {
    type = types.listOf (types.submodule {options = removeAttrs kinds.mount.options ["name"];});
    default = [];
    description = "Mounts.";
  };
  mountName = where:
    if where == "/"
    then "-"
    else lib.replaceStrings ["-" "/"] ["\\x2d" "-"] (lib.removePrefix "/" where);

  render = kind: name: unit:
    lib.nameValuePair unit.name {
      inherit (unit) enable wantedBy requiredBy upheldBy aliases overrideStrategy;
      text = kinds.${kind}.text name unit;
    };
  rendered = lib.concatMapAttrs (_: units: units) {
    services = lib.mapAttrs' (render "service") cfg.services;
    sockets = lib.mapAttrs' (render "socket") cfg.sockets;
    timers = lib.mapAttrs' (render "timer") cfg.timers;
    paths = lib.mapAttrs' (render "path") cfg.paths;
    slices = lib.mapAttrs' (render "slice") cfg.slices;
    targets = lib.mapAttrs' (render "target") cfg.targets;
    mounts = builtins.listToAttrs (
      map (unit: render "mount" (mountName unit.where) (unit // {name = "${mountName unit.where}.mount";})) cfg.mounts
    );
  };

  upstream = [
    "basic.target"
    "getty.target"
    "local-fs.target"
    "multi-user.target"
    "network-online.target"
    "network.target"
    "nss-lookup.target"
    "nss-user-lookup.target"
    "paths.target"
    "remote-fs.target"
    "slices.target"
    "sockets.target"
    "swap.target"
    "sysinit.target"
    "time-sync.target"
    "timers.target"
  ];
  units = builtins.attrValues (lib.mapAttrs (name: unit: unit // {inherit name;}) cfg.units);
  isDropin = unit: unit.overrideStrategy == "asDropin" || builtins.elem unit.name upstream;
  file = n: unit: "text${toString n}";
  place = n: unit: let
    name = lib.escapeShellArg unit.name;
  in
    (
      if !unit.enable
      then "ln -s /dev/null ${name}"
      else if isDropin unit
      then ''mkdir -p ${name}.d; cp "''$${file n unit}Path" ${name}.d/overrides.conf''
      else ''cp "''$${file n unit}Path" ${name}''
    )
    + "\n"
    + lib.concatMapStrings (alias: "ln -s ${name} ${lib.escapeShellArg alias}\n") unit.aliases
    + lib.concatStrings (
      lib.mapAttrsToList (
        suffix: targets:
          lib.concatMapStrings (
            target: "mkdir -p ${lib.escapeShellArg target}.${suffix}; ln -sfn ../${name} ${lib.escapeShellArg target}.${suffix}/\n"
          )
          targets
      ) {
        wants = unit.wantedBy;
        requires = unit.requiredBy;
        upholds = unit.upheldBy;
      }
    );
  systemUnits =
    pkgs.runCommand "system-units" (
      {
        passAsFile = lib.imap0 file units;
        packages = map toString cfg.packages;
      }
      // builtins.listToAttrs (lib.imap0 (n: unit: lib.nameValuePair (file n unit) unit.text) units)
    ) ''
      mkdir -p $out; cd $out
      for target in ${toString upstream}; do ln -s /usr/lib/systemd/system/$target $target; done
      for package in $packages; do
        for unit in "$package"/etc/systemd/system/* "$package"/lib/systemd/system/*; do
          [ ! -f "$unit" ] || ln -sfn "$unit" .
        done
      done
      ${lib.concatStrings (lib.imap0 place units)}
    '';
in {
  imports = [
    (lib.mkRemovedOptionModule ["systemd" "extraConfig"] "Use systemd.settings.Manager instead.")
  ];
  options.systemd = {
    package = option types.package pkgs.systemd "The systemd package.";
    packages = option (types.listOf types.package) [] "Packages that have units.";
    units = mkOption {
      default = {};
      description = "Units by their full names, as text.";
      type = types.attrsOf (types.submodule ({
        name,
        config,
        ...
      }: {
        options = {
          inherit (kinds.target.options) enable wantedBy requiredBy upheldBy aliases overrideStrategy;
          text = optional types.str "The unit's text.";
          unit = mkOption {
            type = types.raw;
            internal = true;
            description = "The unit as a package.";
          };
        };
        config.unit = lib.mkDefault (pkgs.writeTextDir name config.text);
      }));
    };
    services = collection "service";
    sockets = collection "socket";
    timers = collection "timer";
    paths = collection "path";
    slices = collection "slice";
    targets = collection "target";
    inherit mounts;
    automounts = option (types.listOf types.anything) [] "Not supported.";
    user = option (types.attrsOf types.anything) {} "Without effect in the lab.";
    network = option (types.attrsOf types.anything) {} "Without effect in the lab.";
    oomd = option (types.attrsOf types.anything) {} "Without effect in the lab.";
    coredump = option (types.attrsOf types.anything) {} "Without effect in the lab.";
    sleep = option (types.attrsOf types.anything) {} "Without effect in the lab.";
    enableEmergencyMode = flag true "Without effect in the lab.";
    globalEnvironment = option (types.attrsOf (types.nullOr types.str)) {} "Environment of all units.";
    settings.Manager = section;
  };
  config = {
    systemd.units = rendered;
    systemd.timers = lib.mapAttrs (_: service: {
      wantedBy = ["timers.target"];
      timerConfig.OnCalendar = service.startAt;
    }) (lib.filterAttrs (_: service: service.enable && service.startAt != []) cfg.services);
    environment.etc = {
      "systemd/system".source = systemUnits;
      "systemd/system.conf".text = "[Manager]\n${settings cfg.settings.Manager}";
    };
    system.build.units = cfg.units;
    assertions =
      [(refuse "systemd.automounts" (cfg.automounts != []))]
      ++ lib.concatLists (
        lib.mapAttrsToList (name: service: [
          {
            assertion =
              !(service.serviceConfig
                ? Type
                && service.serviceConfig.Type == "oneshot"
                && builtins.elem (service.serviceConfig.Restart or "no") [
                  "always"
                  "on-success"
                ]);
            message = "systemd.services.${name}: Service of type 'oneshot' cannot use 'Restart=${toString (service.serviceConfig.Restart or "")}'";
          }
          {
            assertion = !(service.reloadIfChanged && service.reloadTriggers != []);
            message = "systemd.services.${name}: reloadIfChanged and reloadTriggers exclude each other";
          }
        ])
        cfg.services
      );
  };
}

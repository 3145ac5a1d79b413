# systemd-tmpfiles: rules, and the unit that applies them on each switch.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  inherit (import ./declare.nix lib) option;
  cfg = config.systemd.tmpfiles;
  rule = path: type: entry:
    lib.concatStringsSep " " [type (builtins.toJSON path) entry.mode entry.user entry.group entry.age entry.argument];
  field = default:
    mkOption {
      type = types.str;
      inherit default;
      description = "Field of a tmpfiles.d line.";
    };
in {
  options.systemd.tmpfiles = {
    rules = option (types.listOf types.str) [] "Lines of tmpfiles.d(5).";
    settings = mkOption {
      default = {};
      description = "The same as sets: file, path, type.";
      type = types.attrsOf (types.attrsOf (types.attrsOf (types.submodule {
        options = {
          mode = field "-";
          user = field "-";
          group = field "-";
          age = field "-";
          argument = field "";
        };
      })));
    };
  };
  config = {
    environment.etc =
      {
        "tmpfiles.d/00-nixos.conf".text = "# This file is created automatically and should not be modified.\n# Please change the option ‘systemd.tmpfiles.rules’ instead.\n\n${lib.concatMapStrings (line: line + "\n") cfg.rules}";
      }
      // lib.mapAttrs' (
        name: paths:
          lib.nameValuePair "tmpfiles.d/${name}.conf" {
            text = lib.concatStrings (lib.concatLists (lib.mapAttrsToList (
                path: types: lib.mapAttrsToList (type: entry: rule path type entry + "\n") types
              )
              paths));
          }
      )
      cfg.settings;
    systemd.services.systemd-tmpfiles-resetup = {
      description = "Re-setup tmpfiles on a system that is already running.";
      requiredBy = ["sysinit-reactivation.target"];
      after = ["local-fs.target" "systemd-sysusers.service" "systemd-journald.service"];
      before = ["sysinit-reactivation.target" "shutdown.target"];
      conflicts = ["shutdown.target"];
      restartTriggers = [config.environment.etc."tmpfiles.d/00-nixos.conf".source];
      unitConfig.DefaultDependencies = false;
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "${pkgs.systemd}/bin/systemd-tmpfiles --create --remove --exclude-prefix=/dev";
        SuccessExitStatus = "DATAERR CANTCREAT";
      };
    };
    systemd.targets.sysinit-reactivation = {
      description = "Reactivate sysinit units";
    };
  };
}

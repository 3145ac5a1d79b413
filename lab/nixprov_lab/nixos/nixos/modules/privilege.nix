# doas and polkit, as NixOS writes their files; the programs are Debian's.
{
  config,
  lib,
  ...
}: let
  inherit (lib) types;
  inherit (import ./declare.nix lib) option flag inert;
  cfg = config.security;
  words = lib.concatStringsSep " ";
  rule = entry: who:
    words (
      [(if entry.noPass or false then "permit nopass" else "permit")]
      ++ lib.optional (entry.persist or false) "persist"
      ++ lib.optional (entry.keepEnv or false) "keepenv"
      ++ [who]
      ++ lib.optional (entry.runAs or null != null) "as ${entry.runAs}"
      ++ lib.optional (entry.cmd or null != null) "cmd ${entry.cmd}"
    )
    + "\n";
  rules = entry:
    lib.concatMapStrings (rule entry) (entry.users or [] ++ map (group: ":${toString group}") entry.groups or []);
in {
  options.security = {
    doas = {
      enable = flag false "Whether doas is there.";
      wheelNeedsPassword = flag true "Whether people of the group wheel give a password.";
      extraRules = option (types.listOf types.attrs) [] "Rules of doas.conf.";
      extraConfig = option types.lines "" "Lines added to doas.conf.";
    };
    polkit = {
      enable = flag false "Whether polkit is there.";
      debug = flag false "Without effect.";
      extraConfig = option types.lines "" "Rules, in JavaScript.";
      adminIdentities = inert;
    };
  };
  config = {
    security.doas.extraRules = lib.mkBefore [
      {
        groups = ["wheel"];
        noPass = !cfg.doas.wheelNeedsPassword;
      }
    ];
    environment.etc =
      lib.optionalAttrs cfg.doas.enable {
        "doas.conf" = {
          mode = "0440";
          text = ''
            # To modify this file, set the NixOS options
            # `security.doas.extraRules` or `security.doas.extraConfig`. To completely
            # replace the contents of this file, use
            # `environment.etc."doas.conf"`.
            # "root" is allowed to do anything.
            permit nopass keepenv root
            ${lib.concatMapStrings rules cfg.doas.extraRules}
            ${cfg.doas.extraConfig}
          '';
        };
      }
      // lib.optionalAttrs cfg.polkit.enable {
        "polkit-1/rules.d/10-nixos.rules".text = cfg.polkit.extraConfig;
      };
    # D-Bus starts polkit on demand, so a machine without polkit must not have the unit.
    systemd.services.polkit = lib.mkIf (!cfg.polkit.enable) {enable = false;};
  };
}

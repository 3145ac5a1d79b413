# sudo, certificates, and the directory of programs that run as root.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  inherit (import ./declare.nix lib) option flag inert refuse;
  cfg = config.security;
  command = item:
    if builtins.isString item
    then item
    else lib.concatMapStrings (option: "${option}:") item.options or [] + " ${item.command}";
  rule = entry:
    lib.concatMapStrings (
      who: "${who} ${entry.host or "ALL"}=(${entry.runAs or "ALL:ALL"}) ${lib.concatMapStringsSep ", " command entry.commands}\n"
    ) (
      entry.users
      or []
      ++ map (group:
        if builtins.isInt group
        then "%#${toString group}"
        else "%${group}")
      entry.groups or []
    );
  certificates = pkgs.runCommand "ca-certificates.crt" {
    files =
      ["${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt"]
      ++ map toString cfg.pki.certificateFiles
      ++ map (pkgs.writeText "certificate") cfg.pki.certificates;
  } "cat $files > $out";
in {
  options.security = {
    sudo = {
      enable = flag true "Whether sudo is there.";
      package = option types.package pkgs.sudo "sudo.";
      wheelNeedsPassword = flag true "Whether people of the group wheel give a password.";
      execWheelOnly = flag false "Without effect.";
      keepTerminfo = flag true "Without effect.";
      defaultOptions = option (types.listOf types.str) ["SETENV"] "Options of wheel's rule.";
      extraConfig = option types.lines "" "Lines added to sudoers.";
      extraRules = option (types.listOf types.attrs) [] "More rules.";
      configFile = mkOption {
        type = types.lines;
        internal = true;
        description = "sudoers.";
      };
    };
    sudo-rs = option types.attrs {} "Not supported.";
    pki = {
      installCACerts = flag true "Whether there are certificates.";
      certificateFiles = option (types.listOf types.path) [] "More certificates, as files.";
      certificates = option (types.listOf types.str) [] "More certificates.";
      caCertificateBlacklist = option (types.listOf types.str) [] "Without effect.";
    };
    wrapperDir = mkOption {
      type = types.path;
      default = "/run/wrappers/bin";
      internal = true;
      description = "Where they are.";
    };
    pam = inert;
    rtkit = inert;
    acme = inert;
    apparmor = inert;
    auditd = inert;
    protectKernelImage = flag false "Without effect.";
    lockKernelModules = flag false "Without effect.";
  };
  config = {
    assertions = [(refuse "security.sudo-rs.enable" (cfg.sudo-rs.enable or false))];
    security.sudo.extraRules = lib.mkBefore [
      {
        users = ["root"];
        commands = [
          {
            command = "ALL";
            options = cfg.sudo.defaultOptions;
          }
        ];
      }
      {
        groups = ["wheel"];
        commands = [
          {
            command = "ALL";
            options = lib.optional (!cfg.sudo.wheelNeedsPassword) "NOPASSWD" ++ cfg.sudo.defaultOptions;
          }
        ];
      }
    ];
    security.sudo.configFile = lib.concatMapStrings rule cfg.sudo.extraRules + cfg.sudo.extraConfig;
    environment.etc =
      {
        "ssl/certs/ca-bundle.crt".source = certificates;
        "ssl/certs/ca-certificates.crt".source = certificates;
      }
      // lib.optionalAttrs cfg.sudo.enable {
        sudoers = {
          mode = "0440";
          source = pkgs.writeText "sudoers" ''
            # Don't edit this file. Set the NixOS options ‘security.sudo.configFile’
            # or ‘security.sudo.extraRules’ instead.
            Defaults env_keep+=NIX_PATH
            Defaults secure_path="/run/wrappers/bin:/nix/var/nix/profiles/default/bin:/run/current-system/sw/bin"
            ${cfg.sudo.configFile}
          '';
        };
      };
    # NixOS puts set-uid copies here; Debian's programs are set-uid where they are.
    system.activationScripts.wrappers = {
      deps = ["users"];
      text = ''
        mkdir -p /run/wrappers
        rm -rf /run/wrappers/bin.new
        mkdir /run/wrappers/bin.new
        for program in ${lib.optionalString cfg.sudo.enable "sudo"} ${lib.optionalString cfg.doas.enable "doas"} su mount umount passwd chsh newgrp; do
          [ ! -e /usr/bin/$program ] || ln -s /usr/bin/$program /run/wrappers/bin.new/$program
        done
        rm -rf /run/wrappers/bin
        mv /run/wrappers/bin.new /run/wrappers/bin
      '';
    };
  };
}

# sshd: Debian's program, by a unit and a configuration as NixOS makes them.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  inherit (import ./declare.nix lib) option optional flag refuse;
  cfg = config.services.openssh;
  show = value:
    if builtins.isBool value
    then lib.boolToYesNo value
    else if builtins.isList value
    then lib.concatMapStringsSep "," toString value
    else toString value;
  settings = lib.filterAttrs (_: value: value != null) cfg.settings;
  keyed = lib.filterAttrs (_: user:
    user.enable
    && (user.openssh.authorizedKeys.keys != [] || user.openssh.authorizedKeys.keyFiles != []))
  config.users.users;
in {
  imports = [
    (lib.mkRenamedOptionModule [
      "services"
      "openssh"
      "permitRootLogin"
    ] ["services" "openssh" "settings" "PermitRootLogin"])
    (lib.mkRenamedOptionModule [
      "services"
      "openssh"
      "passwordAuthentication"
    ] ["services" "openssh" "settings" "PasswordAuthentication"])
    (lib.mkRenamedOptionModule [
      "services"
      "openssh"
      "forwardX11"
    ] ["services" "openssh" "settings" "X11Forwarding"])
  ];
  options.services.openssh = {
    enable = lib.mkEnableOption "the OpenSSH secure shell daemon, which allows secure remote logins";
    package = option types.package pkgs.openssh "OpenSSH (the server is the machine's own).";
    ports = option (types.listOf types.port) [22] "Ports.";
    openFirewall = flag true "Whether the firewall lets the ports through.";
    startWhenNeeded = flag false "Not supported.";
    allowSFTP = flag true "Whether SFTP is offered.";
    listenAddresses = option (types.listOf types.anything) [] "Without effect.";
    hostKeys = mkOption {
      type = types.listOf types.attrs;
      default = [
        {
          type = "ed25519";
          path = "/etc/ssh/ssh_host_ed25519_key";
        }
      ];
      description = "Host keys, made if they are missing.";
    };
    authorizedKeysFiles = option (types.listOf types.str) [] "Files with public keys.";
    authorizedKeysInHomedir = flag true "Whether ~/.ssh/authorized_keys is read.";
    banner = optional types.lines "Without effect.";
    extraConfig = option types.lines "" "Lines added to sshd_config.";
    settings = mkOption {
      description = "sshd_config.";
      default = {};
      type = types.submodule {
        freeformType =
          types.attrsOf (types.nullOr (types.oneOf [types.bool types.int types.str types.path (types.listOf types.str)]));
        options = {
          PermitRootLogin =
            option (types.nullOr (types.enum ["yes" "without-password" "prohibit-password" "forced-commands-only" "no"])) "prohibit-password" "Whether root may log in.";
          PasswordAuthentication = option (types.nullOr types.bool) true "Whether passwords are taken.";
          KbdInteractiveAuthentication = option (types.nullOr types.bool) true "Whether dialogues are held.";
          UsePAM = option (types.nullOr types.bool) true "Whether PAM is used.";
          X11Forwarding = option (types.nullOr types.bool) false "Whether X11 is forwarded.";
        };
      };
    };
  };
  config = lib.mkIf cfg.enable {
    assertions = [(refuse "services.openssh.startWhenNeeded" cfg.startWhenNeeded)];
    services.openssh.authorizedKeysFiles =
      lib.optional cfg.authorizedKeysInHomedir "%h/.ssh/authorized_keys" ++ ["/etc/ssh/authorized_keys.d/%u"];
    environment.etc =
      {
        "ssh/sshd_config".text = ''
          ${lib.concatStrings (lib.mapAttrsToList (name: value: "${name} ${show value}\n") settings)}
          ${lib.concatMapStrings (port: "Port ${toString port}\n") cfg.ports}
          ${lib.optionalString cfg.allowSFTP "Subsystem sftp /usr/lib/openssh/sftp-server"}
          AcceptEnv LANG LC_* COLORTERM NO_COLOR
          PrintMotd no
          AuthorizedKeysFile ${toString cfg.authorizedKeysFiles}
          ${lib.concatMapStrings (key: "HostKey ${key.path}\n") cfg.hostKeys}
          ${cfg.extraConfig}
        '';
      }
      // lib.mapAttrs' (
        _: user:
          lib.nameValuePair "ssh/authorized_keys.d/${user.name}" {
            mode = "0444";
            source = pkgs.writeText "${user.name}-authorized_keys" ''
              ${lib.concatStringsSep "\n" user.openssh.authorizedKeys.keys}
              ${lib.concatMapStrings (file: builtins.readFile file + "\n") user.openssh.authorizedKeys.keyFiles}
            '';
          }
      )
      keyed;
    systemd.services.sshd = {
      description = "SSH Daemon";
      wantedBy = ["multi-user.target"];
      after = ["network.target" "sshd-keygen.service"];
      wants = ["sshd-keygen.service"];
      stopIfChanged = false;
      path = [cfg.package];
      restartTriggers = [config.environment.etc."ssh/sshd_config".source];
      serviceConfig = {
        Type = "notify-reload";
        Restart = "always";
        ExecStart = "/usr/sbin/sshd -D -f /etc/ssh/sshd_config";
        KillMode = "process";
        RuntimeDirectory = "sshd";
        RuntimeDirectoryPreserve = true;
      };
    };
    systemd.services.sshd-keygen = {
      description = "SSH Host Keys Generation";
      path = [cfg.package];
      script =
        lib.concatMapStrings (key: ''
          if ! [ -s ${lib.escapeShellArg key.path} ]; then
            ssh-keygen -q -t ${lib.escapeShellArg key.type} ${lib.optionalString (key ? bits) "-b ${toString key.bits}"} -f ${lib.escapeShellArg key.path} -N ""
          fi
        '')
        cfg.hostKeys;
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
      };
    };
    networking.firewall.allowedTCPPorts = lib.optionals cfg.openFirewall cfg.ports;
    users.groups.sshd = {};
    users.users.sshd = {
      isSystemUser = true;
      group = "sshd";
      description = "SSH privilege separation user";
    };
  };
}

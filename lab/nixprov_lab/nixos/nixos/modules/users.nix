# Users and groups: the lists that update-users.sh brings /etc/passwd and /etc/group to.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) types;
  inherit (import ./declare.nix lib) option required optional flag;
  cfg = config.users;
  shellPath = shell:
    if lib.isDerivation shell
    then "/run/current-system/sw${shell.shellPath or "/bin/bash"}"
    else toString shell;
  keys = {
    keys = option (types.listOf types.singleLineStr) [] "Public keys that may log in.";
    keyFiles = option (types.listOf types.path) [] "Files with public keys that may log in.";
  };

  user = {
    name,
    config,
    ...
  }: {
    options = {
      enable = flag true "Whether the user is made.";
      name = required (types.passwdEntry types.str) "The user's name.";
      description = option (types.passwdEntry types.str) "" "The user's full name.";
      uid = optional types.int "The user's number; null: a free one.";
      isSystemUser = flag false "A user of the system, not a person.";
      isNormalUser = flag false "A person's account.";
      group = option types.str "" "The user's primary group.";
      extraGroups = option (types.listOf types.str) [] "The user's other groups.";
      home = option (types.passwdEntry types.path) "/var/empty" "The user's home directory.";
      homeMode = option (types.strMatching "[0-7]{1,5}") "700" "Mode of the home directory.";
      createHome = flag false "Whether the home directory is made.";
      useDefaultShell = flag false "Whether the user gets users.defaultUserShell.";
      ignoreShellProgramCheck = flag false "Without effect.";
      shell =
        option (types.nullOr (types.either types.shellPackage (types.passwdEntry types.path))) "${pkgs.shadow}/bin/nologin" "The user's shell.";
      subUidRanges = option (types.listOf types.anything) [] "Without effect.";
      subGidRanges = option (types.listOf types.anything) [] "Without effect.";
      autoSubUidGidRange = flag false "Without effect.";
      linger = option (types.nullOr types.bool) false "Without effect.";
      packages = option (types.listOf types.package) [] "Packages of this user alone.";
      expires = optional types.str "Without effect.";
      hashedPassword = optional (types.passwdEntry types.str) "The hash of the password.";
      hashedPasswordFile = optional types.str "A file with the hash of the password.";
      initialHashedPassword = optional (types.passwdEntry types.str) "The hash of a new user's password.";
      initialPassword = optional types.str "A new user's password.";
      password = optional types.str "The password.";
      passwordFile = optional types.str "A file with the hash of the password, by its old name.";
      openssh.authorizedKeys = keys;
      cryptHomeLuks = optional types.str "Without effect.";
      pamMount = option (types.attrsOf types.anything) {} "Without effect.";
    };
    config = lib.mkMerge [
      {
        name = lib.mkDefault name;
        shell = lib.mkIf config.useDefaultShell (lib.mkDefault cfg.defaultUserShell);
      }
      (lib.mkIf config.isNormalUser {
        group = lib.mkDefault "users";
        createHome = lib.mkDefault true;
        home = lib.mkDefault "/home/${config.name}";
        useDefaultShell = lib.mkDefault true;
      })
    ];
  };
  group = {name, ...}: {
    options = {
      name = required (types.passwdEntry types.str) "The group's name.";
      gid = optional types.int "The group's number; null: a free one.";
      members = option (types.listOf (types.passwdEntry types.str)) [] "The group's users.";
    };
    config = {
      name = lib.mkDefault name;
      members = lib.mapAttrsToList (_: user: user.name) (lib.filterAttrs (_: user:
        user.enable
        && builtins.elem name user.extraGroups)
      cfg.users);
    };
  };

  users = builtins.filter (user: user.enable) (builtins.attrValues cfg.users);
  # `-` stands for an empty field, as `read` would take two tabs for one.
  fields = values:
    lib.concatMapStringsSep "\t" (value:
      if value == null || value == ""
      then "-"
      else if builtins.isBool value
      then lib.boolToString value
      else toString value)
    values
    + "\n";
  list = pkgs.writeText "users-groups" (
    lib.concatMapStrings (
      group: fields ["group" group.name group.gid (lib.concatStringsSep "," group.members)]
    ) (builtins.attrValues cfg.groups)
    + lib.concatMapStrings (
      user:
        fields [
          "user"
          user.name
          user.uid
          user.group
          user.home
          (shellPath user.shell)
          user.description
          user.isSystemUser
          user.createHome
          user.homeMode
          user.hashedPassword
          user.initialHashedPassword
          (
            if user.hashedPasswordFile == null
            then user.passwordFile
            else user.hashedPasswordFile
          )
        ]
    )
    users
  );
  plain = user: user.password != null || user.initialPassword != null;
  withPackages = builtins.filter (user: user.packages != []) users;
in {
  options.users = {
    mutableUsers = flag true "Whether users made by hand stay.";
    enforceIdUniqueness = flag true "Whether numbers must be unique.";
    allowNoPasswordLogin = flag false "Without effect.";
    defaultUserShell =
      option (types.either types.path types.shellPackage) pkgs.bashInteractive "The shell of people's accounts.";
    motd = optional types.lines "Without effect.";
    users = option (types.attrsOf (types.submodule user)) {} "Users.";
    groups = option (types.attrsOf (types.submodule group)) {} "Groups.";
    extraUsers = option (types.attrsOf types.anything) {} "users.users by its old name.";
    extraGroups = option (types.attrsOf types.anything) {} "users.groups by its old name.";
  };
  config = {
    users.users = lib.mkMerge [
      cfg.extraUsers
      {
        root = {
          uid = 0;
          description = "System administrator";
          home = "/root";
          shell = lib.mkDefault cfg.defaultUserShell;
          group = "root";
          isSystemUser = true;
        };
        nobody = {
          uid = 65534;
          isSystemUser = true;
          description = "Unprivileged account (don't use!)";
          group = "nogroup";
        };
      }
    ];
    users.groups = lib.mkMerge [
      cfg.extraGroups
      {
        root.gid = 0;
        wheel.gid = 1;
        disk.gid = 6;
        users.gid = 100;
        nogroup.gid = 65534;
      }
    ];
    environment.etc = builtins.listToAttrs (
      map (user:
        lib.nameValuePair "profiles/per-user/${user.name}" {
          source = pkgs.buildEnv {
            name = "user-environment";
            paths = user.packages;
            pathsToLink = config.environment.pathsToLink;
            ignoreCollisions = true;
          };
        })
      withPackages
    );
    system.activationScripts.users = {
      supportsDryActivation = true;
      text = "${pkgs.runtimeShell} ${./update-users.sh} ${list} ${lib.boolToString cfg.mutableUsers}";
    };
    system.activationScripts.groups = {
      deps = ["users"];
      text = "";
    };
    assertions =
      lib.concatMap (user: [
        {
          assertion = (user.isSystemUser && !user.isNormalUser) || (user.isNormalUser && !user.isSystemUser);
          message = "Exactly one of users.users.${user.name}.isSystemUser and users.users.${user.name}.isNormalUser must be set.";
        }
        {
          assertion = user.group != "";
          message = ''
            users.users.${user.name}.group is unset. This used to default to
            nogroup, but this is unsafe. For example you can create a group
            for this user with:
            users.users.${user.name}.group = "${user.name}";
            users.groups.${user.name} = {};
          '';
        }
        {
          assertion = !plain user;
          message = "users.users.${user.name}: plain passwords are not supported by the stand-in NixOS: use hashedPassword";
        }
      ])
      users;
  };
}

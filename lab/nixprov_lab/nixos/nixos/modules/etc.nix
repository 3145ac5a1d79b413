# /etc: a store path with everything below etc/, which setup-etc.sh links into place through /etc/static.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  inherit (import ./declare.nix lib) option required optional flag;
  entries = builtins.filter (entry: entry.enable) (builtins.attrValues config.environment.etc);
  line = entry: "${entry.source}\t${entry.target}\t${entry.mode}\t${entry.user}\t${entry.group}";
  etc = pkgs.runCommand "etc" {
    entries = lib.concatMapStrings (entry: line entry + "\n") entries;
    passAsFile = ["entries"];
  } (builtins.readFile ./make-etc.sh);
in {
  options.environment.etc = mkOption {
    default = {};
    description = "Files below /etc.";
    type = types.attrsOf (
      types.submodule (
        {
          name,
          config,
          options,
          ...
        }: {
          options = {
            enable = flag true "Whether this file is made.";
            target = required types.str "The file's name, relative to /etc.";
            text = optional types.lines "The file's text.";
            source = required types.path "The file's source.";
            mode = option types.str "symlink" "symlink, direct-symlink, or the mode of a copy.";
            uid = option types.int 0 "Owner of a copy.";
            gid = option types.int 0 "Group of a copy.";
            user = option types.str "+${toString config.uid}" "Owner of a copy, by name.";
            group = option types.str "+${toString config.gid}" "Group of a copy, by name.";
          };
          config = {
            target = lib.mkDefault name;
            source = lib.mkIf (config.text != null) (
              let
                name' = "etc-" + lib.replaceStrings ["/"] ["-"] name;
              in
                lib.mkDerivedConfig options.text (pkgs.writeText (lib.sanitizeDerivationName name'))
            );
          };
        }
      )
    );
  };
  config = {
    system.build.etc = etc;
    system.activationScripts.etc = {
      deps = ["users"];
      supportsDryActivation = false;
      text = ''
        echo "setting up /etc..."
        ${pkgs.runtimeShell} ${./setup-etc.sh} ${etc}/etc
      '';
    };
  };
}

{lib, ...}: let
  inherit (lib) mkOption types;
  inherit (import ./declare.nix lib) option;
in {
  options = {
    assertions = option (types.listOf types.unspecified) [] "What must hold for the configuration to be built.";
    warnings = option (types.listOf types.str) [] "What the user is told on each evaluation.";
    meta = mkOption {
      type = types.attrsOf types.anything;
      default = {};
      internal = true;
      description = "About a module: maintainers, documentation.";
    };
    lib = mkOption {
      type = types.attrsOf types.attrs;
      default = {};
      internal = true;
      description = "Functions that modules give to other modules.";
    };
  };
}

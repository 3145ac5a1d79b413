{
  config,
  lib,
  ...
}: let
  inherit (lib) types;
  inherit (import ./declare.nix lib) option required optional;
  cfg = config.nixpkgs;
  system =
    if cfg.hostPlatform == null
    then cfg.system
    else cfg.hostPlatform.system or cfg.hostPlatform;
in {
  options.nixpkgs = {
    pkgs = optional types.raw "The package set, when it is not made from the other options.";
    config =
      option (types.attrsOf types.anything) {} "nixpkgs' configuration (the stand-in has nothing that is unfree or broken).";
    overlays = option (types.listOf (types.functionTo (types.functionTo types.raw))) [] "Overlays, applied in order.";
    hostPlatform = optional (types.either types.str types.attrs) "The platform of the machine.";
    system = required types.str "The platform, by its old name.";
  };
  config._module.args.pkgs = lib.mkOverride 1400 (
    if cfg.pkgs != null
    then cfg.pkgs.appendOverlays cfg.overlays
    else
      import ../.. {
        inherit system;
        inherit (cfg) config overlays;
      }
  );
}

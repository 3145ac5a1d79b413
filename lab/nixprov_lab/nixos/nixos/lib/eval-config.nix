# Evaluates modules on top of NixOS' own: { config, options, pkgs, extendModules, ... }.
{
  system ? builtins.currentSystem or null,
  pkgs ? null,
  lib ? import ../../lib,
  modules,
  baseModules ? import ../modules/module-list.nix,
  extraModules ? (
    let
      extra = builtins.getEnv "NIXOS_EXTRA_MODULE_PATH";
    in
      if extra == ""
      then []
      else [(import extra)]
  ),
  specialArgs ? {},
  prefix ? [],
  modulesLocation ? null,
  check ? true,
  # Only in the stand-in: options to leave out, for tests of modules with older releases.
  absent ? [],
}: let
  setup = {
    _file = ./eval-config.nix;
    key = ./eval-config.nix;
    config = {
      _module.check = lib.mkDefault check;
      nixpkgs.system = lib.mkIf (system != null) (lib.mkDefault system);
      _module.args.pkgs = lib.mkIf (pkgs != null) (lib.mkForce pkgs);
    };
  };
  located =
    if modulesLocation == null
    then modules
    else map (lib.setDefaultModuleLocation modulesLocation) modules;
  withExtras = eval:
    eval
    // {
      inherit lib;
      pkgs = eval._module.args.pkgs;
      extraArgs = {};
      extendModules = args: withExtras (eval.extendModules args);
    };
in
  withExtras (
    lib.evalModules {
      class = "nixos";
      inherit absent prefix;
      specialArgs =
        {
          modulesPath = builtins.toString ../modules;
        }
        // specialArgs;
      modules = baseModules ++ [setup] ++ extraModules ++ located;
    }
  )

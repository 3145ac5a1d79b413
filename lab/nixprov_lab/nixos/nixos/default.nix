# `<nixpkgs/nixos>`: a whole machine, from its configuration.
{
  configuration ? import ./lib/from-env.nix,
  system ? builtins.currentSystem,
  specialArgs ? {},
  # The stand-in's own, see lib/eval-config.nix.
  absent ? [],
}: let
  eval = import ./lib/eval-config.nix {
    inherit absent system specialArgs;
    modules = [configuration];
  };
in {
  inherit (eval) config options pkgs;
  system = eval.config.system.build.toplevel;
  vm = throw "nixos: `vm' is not supported by the stand-in NixOS";
  vmWithBootLoader = throw "nixos: `vmWithBootLoader' is not supported by the stand-in NixOS";
}

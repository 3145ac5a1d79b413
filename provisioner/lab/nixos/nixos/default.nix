# `<nixpkgs/nixos>`: a whole machine, from its configuration.
{
  configuration ? import ./lib/from-env.nix,
  system ? builtins.currentSystem,
  specialArgs ? {},
}: let
  eval = import ./lib/eval-config.nix {
    inherit system specialArgs;
    modules = [configuration];
  };
in {
  inherit (eval) config options pkgs;
  system = eval.config.system.build.toplevel;
  vm = throw "nixos: `vm' is not supported by the stand-in NixOS";
  vmWithBootLoader = throw "nixos: `vmWithBootLoader' is not supported by the stand-in NixOS";
}

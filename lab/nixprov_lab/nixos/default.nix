# `import <nixpkgs> { }`: the package set of the stand-in.
{
  localSystem ? {inherit system;},
  system ? builtins.currentSystem,
  config ? {},
  overlays ? [],
  crossSystem ? null,
}:
if crossSystem != null
then throw "nixpkgs: crossSystem is not supported by the stand-in NixOS"
else
  import ./pkgs {
    lib = import ./lib;
    system = localSystem.system;
    inherit config overlays;
  }

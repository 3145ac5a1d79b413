# Parts of nixpkgs that modules may use and the stand-in lacks. Each fails by its name when it is used.
lib:
lib.genAttrs [
  "applyPatches"
  "buildFHSEnv"
  "buildGoModule"
  "buildPackages"
  "dockerTools"
  "fetchFromGitHub"
  "fetchFromGitLab"
  "fetchgit"
  "fetchurl"
  "fetchzip"
  "formats"
  "makeSetupHook"
  "mkDerivation"
  "nixosTest"
  "ociTools"
  "substituteAll"
  "testers"
  "vmTools"
  "writers"
] (name: throw "pkgs.${name}: not supported by the stand-in NixOS")

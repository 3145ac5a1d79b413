{ lib, ... }:
{
  imports = if true then [ (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) ] else [ ];
}

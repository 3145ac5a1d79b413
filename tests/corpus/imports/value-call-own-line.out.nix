{ lib, ... }:
{
  imports =
    [ (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) ] /* nixprov */ ++ lib.optional true ./a.nix
    ++ lib.optionals false [
      ./b.nix
    ];
}

{ ... }:
{
  # nixprov and ./nixprov are mentioned here, ./nixprov/default.nix too
  imports = [
    ./nixprov-extra.nix
    ./sub/nixprov
    ../nixprov
    (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) # nixprov: added by "nixprov up", removed by "nixprov down"
  ];
  services.nixprov.note = "./nixprov/default.nix";
}

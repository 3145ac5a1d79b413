{ ... }:
{
  # nixprov and ./nixprov are mentioned here, ./nixprov/default.nix too
  imports = [
    ./nixprov-extra.nix
    ./sub/nixprov
    ../nixprov
  ];
  services.nixprov.note = "./nixprov/default.nix";
}

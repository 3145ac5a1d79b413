{ lib, ... }:
assert 1 + 1 == 2;
{
  imports = [
    ./a.nix
  ];
}

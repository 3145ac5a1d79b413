{ ... }:
{
  imports = assert true; [
    ./a.nix
  ];
}

args:
{
  imports = [
    ./a.nix
  ];
}

{ ... }:
{
  # Grüße 🙂
  imports = [
    ./a.nix # ümläut
  ];
}

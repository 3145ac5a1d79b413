{ ... }:
{ # grüße
  imports = [ # für
    ./a.nix # é
  ];
  text = "äÿ";
}

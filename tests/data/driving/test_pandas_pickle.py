"""Pickled tables, without pandas and without trusting them."""

import base64
import pickle
import zlib

import numpy as np
import pytest
from fuzzing import QUICK, check_reader

from ponder3d.data.dataset import DataError
from ponder3d.data.driving.pandas_pickle import parse_table, read_table

MADE = {
    "1.5.3-2": (
        "c-nQ8X?N5%6ox%BnUuIK`&wF-(!#J!o3e!#8VE}OmjT3PmLOzX8Jl?Qc`cb_3RA*|B;;T4Gx*M*;u}b^hn%v==V-"
        "C+y?WkjU(HwjE=vL?ntqz`=5)q7+&<4FyJ%*x_P<1>k7~mmvMh^s+8Jv9^N143vxLQ>*<lH5^Gw(iaq7=pEmk&$8UuS8N1j-"
        "5uxXxjBY!65)YBd|>VA@Uy1gQBCy!;svW)d?nsGl(gv@eZ+88dZY!%b&;v2_Wz$%~mX~2D9^F&W<jJOqr?7?=2)fh7wC8PLu5#JG"
        "fzl7BUYZ^{PJ=I05Ekg#f*HxbD+^Y5*#row}OV~iLvEkHAwCC8=YPGJsSIu;eC9&CC4o8ef#ln_Qov@W)o5T;EPpOwjN=8DdE#k;"
        "mv9~)zPTi?2;YWg>oaz#G5bO-"
        "=;c#eV><SgzZi1gbvh4{Aoar(AqH%sD*gL>Eg?*plGz`vqYtY`l9xo?v#<5@H9UwR;amWj|J5{HqSq>94HOp@Vzpt>2YL-"
        "6;j(lV}TCzlAIHp;S6P!>i;pY@%hGMO?(kkVMlbYdAg1;nAX@;80h+;TR@V90dCpfdha8@%+5S-"
        "HtHO+9oWVkkl3!32~!K7yR<im_hT=JHuaJgYJ#c-"
        "wk9UQl&#&aygKV~+O3tXLi@vfjVMssL!iEG{f;<|>oK|l<|0&a#Uw7RWdP*)$Qyros%Cb%PU*VDROf_oD8r|_WhNdX0Xj*F(p1h;"
        "9zXX$1A#>T_1o0S$*eLN}(Gf))^I^cb*c^QGHd50I^hm$H3L1CKbQ2_4NO-"
        "*<_#<WR8kIkZO)CUM%Ta7}hl1USm^$;1)B$XUbRAy$pVy$in#I1Z09fBnMGH=F`Hn)lHOX{?bZX=9a20<N?Nx-"
        "p8L?P2IGN)QDco)K{sQ8i~=ZknsFk9S1s!lQIj+DyHt%aUh(+-"
        "!+q~qTyJTqr7DKmlRee}&uK&NBY7Wl7^7w#6l9mnacph4bM70M*1CM^Q<uSD)OKL8+umT>"
    ),
    "1.5.3-5": (
        "c-n<iO>fjN5Y1<Sb_JyprM>jZa#;y+;ZU(?7x5LbNWCFcMNZ;uqB<Y49c@>l0uC*$<QqeOA3viv7(2U=m8j~2JxM(C-"
        "kZGn>i_I{mRah4P0ECbL0oY<NI5Aes5>u-"
        "B(F^T10H{a6X+{1ET$aPUiW%lO3F*Z#GoK0nNlu5^+v3UkKVV>nBG_0i<FS%k@%Mb>R#BCbsirv8b&$^Z>z1cDe8G!9z)9W7}Q3X"
        "@~ViMG;K>>IxTt2wm|tN1J6XxYfV@=(G$2h{|*Px4_sw`hRI~|?l&&81(t*;umk4|lsyKC*VOH($(hVcB;^a1$GS}51%6=bDuJW-"
        "Y$LndzudIC>({V7uZECqDJOl_#ofOaH`~>y*<RoT?oAL{WV;MR-hs#--3Z{KiWLC$pwr-@LD7VBg6-"
        ">toW@ltByVDg^0Q5K3xAvWh|RE0VQfdxBHLJ3qadFTT|V2Ze1^#9;t(BR6Kr(^${iE5kUMGwy#8{vFra-"
        "56fbJ!JJ%@p|90SM;GQnjwTdKYfSpxWCiIw!K|}<4c|9!YEPSiqX;mMUzl@Em6LdOc&$Aa=VK!RoTf>JphP&4^d4jfJB%%z-"
        "&&dqM;G1<JiOj2#aO|E}R+1VW80xv1G-tZspVaREsBuzGHMawOcKBp$f(Dd?OYFGvgsf`RsRN3EZE8}z;W(n(aZ)w^<<y1+mBa`-"
        "M8ZT$oW~PTYhlXB)PxTSW7SNANmHZCiKL;CCE#2%(cll!e}Y^"
    ),
    "2.2.3-4": (
        "c-oCqQESvd5Kb;h)hgB^)Dy%9pXy7%Hy;WIJyC4%guWlkB-y)!CYzAma6Pc757r*+TgU(B&*+1ovwL@#vqeo{cXl%~-"
        "#3|WKKb8%c#eJaZVe&@875W3!$|`rM}6lND0pq{OMLzr&v0M+teiHepLX4Ip?D*pkYNb|ro54;?;RFZa`J9@rtp2ew+dlJ9?Rb`s"
        "CQT^>O46qIEzgXdFwsVmi0VjHh<X`Du<?lIpt*yPbwi*(<aJz2G$exElO@(E-`Yx;LwfnD<0#1<kH(a$81LjshZcO7Tt?q;NoKW-"
        "P7&|9F0atKk2bc<S2|6!=CFP8TxkI=0rdc)j$?`VlqU26hy8`5cSNO-OcW2y9PLWxCz_Wy~)ci*ujlp50-uSK3MKo0|T8si+Yjw-"
        "#B>(Cky|A;yCVVU!izZ&p%MSHOl)g%9Bl$fk7Elvt2+<9njtoNG;xBEAh?8tCiN=Q{)EsItCpM7Q_CZEQ1c)B}0V<rN61dl%H}L#"
        "vn<%+f48odu#5fUD;R%Yul<gC1vAv0$X%AvIY2Uo2S(90%BfJ1#_5DMRc<*6{x%t(2(eSQ7LYVA=Avss699TkLkxZQENa<4Yy;nc"
        "lc!Wh@_>UQKVh%OI6j>31e_FT$_`dg~pF0Op|H&ucwriT!AfUOoTxxn!hvDTWnIm)S8c=D5{xcX<L(iL2+iwl6WE8IQ#`@_=5r"
    ),
    "2.2.3-5": (
        "c-n<iO>fjN5Z!zgXsc2{TG~smESE@#3x|qDyNIudMd}Tq%5oBC6E$D59c@>l0uC*$<QqeOA3viv7(2U=m8j~2JxM(C-"
        "kZGn>iyhuduFM7H7#Q*{HWs0PdF_Ys5>vIq_0f;10H{a6BsC$6jKgruX{Z!CF3Q{g<sH;P8k=VHb;3C9ldX#F@2!=ixiS)q4<{r>"
        "Mm)@I*X2SMnav0x7CBPDeAdTOnr<Q&mvG8B;i#NHc8UfytG^PJ*x-"
        "GGbwn+a$al3$_}5v#rbzQfI;9W>oZIylXt&ynJwr^2m>py&p=sYka$hq4x22OS&6JXk!O)E6S#pFSh`AJ>pk5_w+5Hnz3%!oY|pD"
        "9r1zDbJnQ1_UyGaWYSeTuumk5N2raT*1|sV~q>pX{a8Shxfa-TUTr{Yfa!#>-"
        "n}oBdDuv`tBvF65t#09uGas=Vy;B%lA+*pI7S=FG=tGxKf0fV>30)kb2P}%c4na9%iY9VKjeyr*t`-)wj)CDtEq&)2>E7QKJPn-F"
        "g}hdh1P!pW>dTlNGvS9+pqtl8$!6rOey3G^RNgW+zK+rBkUmdeXocx$sc#J*-"
        "Wcv~(_}IFBBvqCk^G#_Pz=6V7m~`XDk;bAxn(7p(Sf0!oJn)08~#b{{*M}`<y3P!&}WBFnorPyl5&Y1SFVs%jXHI}FtAKbrZ*f&v"
        "^&nK=D(a<QZPx4phF}~rNoIm0kuYwoK8*nkmh+c6C`eGv^kZG7+C_&MHBje0OhHJ9s"
    ),
    "3obj-5": (
        "c-"
        "n<iO>fjN5KT6lLbnxEAT8z6E6XJk;=%#3XczGnu}Hn5%5oBC6E$%n+tGF<D&Wx4O1?4l_i^PP^af*R3)w?eADnUGnfKo0%~${DZ_"
        "lwyZ`710RD#}oMHPK5XvyFQJpKm9Fw%We&IRbb_D&F2f(1EOOmJGrproA6nZVrbNm0dzAKEjfkMwYrLW(?+|8qd!B@M6h_^@CkGD"
        "&z_-"
        "{(zPF9TxhW6VSzgWe*ksLH5G)3)YCuchp`4rt$|;4@Ln+A!9==n0&keTRJ*g`Rdl!)!Kt{|A@dLPtRqx?%4Wv^xcb*YxeE$qSWpW"
        "aY~uk4>4dANrwds)RkWXIt5w(Z!C_UBAZd^KuN?J>5&6b#b3xi<><(sM%iF3%#2ljL3Fbh`a-lJ-QLVLltWPdf4r7*`R7F1jYVs6"
        "T#w&OC_3Eq5f<~-"
        "@+efKVmnW6PUUYw9qaVHZVx&W0%lyozNHwogbhFT#CJpKzmb)Ch{hYgg0L<SH5$PfZ;_WefJva{=XJH4ZV|<yjGF|1F*a9%Y+><8"
        "AMbv&;!ERg1j^Dj4DU_SF!bVf?kL0MfTDt%qCa*Ht_J)a_=`yo}e!Z8nFV&FX;ls;G2O|ROJ<?0=w7em10&0hGueR&8cblCj=bqQ"
        "$A-"
        "M)U24H&lD93`>Oj=RW+(H0mHzxnapfBc4%sxNW(I<6R9^z$rQD;50DmB3g_+^^ae=_I=A5iS`^hnlBB88%v3RA$xAqsO%(hE^09R"
        "c"
    ),
    "3.0.0-5": (
        "c-pO0&ui2`6i#-N)o#@)#VT5=7h!u@uqO{fu`P-"
        "lOkq8jVUo=5geH?PGof9usE4jC%+1k@|D6AVx8C&4?2l$EB7$>BCYkTO?|tvbeDJ?K@EyBUtHdn9LaU`cEb&W@bD}@%&5!y-"
        "ca(?nA=heSg6YNuC*71u!Wqs)H^&SQ2?yI7J6RDQzL|W3c}J~HO;DCb;?hQ|6;!b@jSn+|B4Y$-"
        "wYmVtoZ}H7*AXg5$CvPM?}a(p!SNwUjM>ep+00=1t>h^iS`?i39<_dW;V0eK)R~>_$x&(af$Wi_1=FwIUrZ7)2Ao=BRbGy|$O_G?"
        "Os3X12t=I31rw52u{8F+MQU{oBAD_8&Z*vYBW)Nvfg3bVHC<PJGNWwlKhx)DlhdYh-{~+6dp}{>N3bn*bbbJ-bFo(7hQRk&N9uZ1"
        "r4R@MfxgJnm{=<C?;2M@!wOucx9FXk;Jb8fK^c8WH%xr=aXq?@<!kO@sBv?r5;IP^WdMr=YPFsl*b|<{kaINPMIKdy!KCnCZ#(t%"
        "eS7l0*w*xkY77=K@cc>!9AG!ZW6-~=rJ>z|Fq&7C_O6mRjyru@lC(xb_y0se`%{8u;Qda}m^-"
        "#Eqo*~On}2ob1^)l4&K#%Q<63$ApjBs(+7$Bs;+Q7nn22tK1<|UF7&$_(%|ECT%!5DM+c8gI^z}an*_yYIS5;{O{h8s2WY9|^d;~"
        "RwKW!ngObdoN%!<bfN#=d+F>}>~mGylJA+`IM4M{C7`YnW(mzYavc;yLMl%Usa2y9$yN$lKu2!;%<Fr#B&uQ0WQaw4%6b^wuKDdD"
        "0zfx$<E3=i%09?r7jNT8%DVXm+w$i^@9nW&=fFVk1-O8"
    ),
}
"""What ``pickle.dumps`` made of one small DataFrame, by version of pandas and protocol, packed; 3obj: pandas 3 with
columns of objects."""


def pickled(name: str) -> bytes:
    return zlib.decompress(base64.b85decode(MADE[name]))


@pytest.mark.parametrize("name", [name for name in MADE if name != "3.0.0-5"])
def test_tables_of_old_and_new_pandas(name):
    table = parse_table(pickled(name), "file")
    assert list(table) == ["uuid", "label", "yaw", "d", "stationary", "note"]
    assert table["uuid"].tolist() == ["a", "b"] and table["label"].tolist() == ["Car", "Bus"]
    assert table["yaw"].tolist() == [0.5, 1.5] and table["yaw"].dtype == np.float64
    assert table["d"].tolist() == [0, 1] and table["d"].dtype == np.int64
    assert table["stationary"].tolist() == [True, False]
    assert np.isnan(table["note"][0]) and table["note"][1] == "x"


class _Runs:
    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (_Runs(print, "run"), "builtins.print"),
        (_Runs(eval, "1"), "builtins.eval"),
        (_Runs(np.zeros, 10**12), "numpy.zeros"),
        (_Runs(getattr, "a", "b"), "builtins.getattr"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_table_is_refused_and_not_run(thing, name, capsys):
    for data in (pickle.dumps(thing), pickle.dumps({"x": [thing]}, protocol=2)):
        with pytest.raises(DataError, match=rf"file: refused: it wants (__builtin__|{name.split('.')[0]})\."):
            parse_table(data, "file")
    assert capsys.readouterr().out == ""


def test_texts_of_pandas_3_are_refused_with_a_way_out():
    with pytest.raises(DataError, match="file: refused: it wants pandas.*pandas 3, write it with columns"):
        parse_table(pickled("3.0.0-5"), "file")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps([1, 2]), "no table of pandas .ValueError: something else than a DataFrame"),
        (b"\x80\x04Pid\n.", "refused: a table needs no PERSID"),
        (b"\x80\x04Nr\xff\xff\xff\x7f.", "no table of pandas .ValueError: memo 2147483647"),
        (b"", "no table of pandas"),
        (b"\x80\x05\x96\xff\xff\xff\xff\x00\x00\x00\x00.", "no table of pandas"),
    ],
)
def test_what_is_no_table(data, message):
    with pytest.raises(DataError, match=f"file: {message}"):
        parse_table(data, "file")


def test_an_array_has_the_bytes_that_its_shape_says():
    data = pickled("2.2.3-4")
    number = np.array([0.5]).tobytes()
    wide = b"\x4b\x01\x4b\x02\x86"  # BININT1 1, BININT1 2, TUPLE2: the shape of the column of numbers
    assert number in data and wide in data
    with pytest.raises(DataError, match="no table of pandas"):
        parse_table(data.replace(wide, b"\x4b\x01\x4b\x7f\x86"), "file")


def test_files_that_cannot_be_unpacked(tmp_path):
    for name, content, message in (
        ("a.pkl.gz", b"\x1f\x8bxx", "no gzip"),
        ("b.pkl.gz", zlib.compress(b"x" * 1000, wbits=31)[:-9], "cut short"),
        ("c.pkl", b"hello", "(refused|no table of pandas)"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: {message}"):
            read_table(tmp_path / name)
    with pytest.raises(DataError, match="none.pkl: cannot be read"):
        read_table(tmp_path / "none.pkl")


@pytest.mark.parametrize("number", [10 * QUICK, pytest.param(20_000, marks=pytest.mark.slow)])
def test_damaged_tables_are_errors_of_data(number):
    check_reader(lambda data: parse_table(data, "file"), [pickled("1.5.3-2"), pickled("2.2.3-5")], number)
